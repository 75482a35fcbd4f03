"""A step of adversarial training: the plain loop that a user writes, what each measure makes of it, and the engine.

    python -m pip install --no-deps torchattacks
    python benchmarks/training_step.py --network lecun1998
    python benchmarks/training_step.py --network resnet18 --batch 32 --steps 2 --rounds 3 --no-accuracy

PGD-7 and an update, on batches of MNIST (LeNet-5) or of random pixels in CIFAR-10's shape (ResNet-18: what is in the
pixels costs nothing). The first arm is torchattacks' PGD in a DataLoader's loop; each arm below it has one measure
more; the last is the engine with the same numbers of steps. Arms take turns in every round, on one thread, in CPU
seconds, so that a busy machine disturbs all alike. Then, for LeNet-5, both ends train from three seeds, and their
accuracies stand beside each other.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.registry import validated
from sweep.training import State, train
from sweep.trial import Trial

EPSILON, STEP_SIZE, ATTACK_STEPS = 0.1, 0.025, 7
LENETS = ("lecun1998", "madry")
Batches = Iterator[tuple[Tensor, Tensor]]


class Plain(nn.Module):
    """A network behind its normalisation, as users write it."""

    def __init__(self, core: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.core, self.mean, self.std = core, mean, std

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.core((images - self.mean) / self.std)
        return logits


class LastingPlain(Plain):
    """The same in channels_last."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.contiguous(memory_format=torch.channels_last))


def pgd(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """PGD whose gradients are the input's only: meanwhile no parameter wants one."""
    model.eval().requires_grad_(False)
    start = images + torch.empty_like(images).uniform_(-EPSILON, EPSILON)
    adversarial = start.clamp(0, 1)
    for _ in range(ATTACK_STEPS):
        adversarial.requires_grad_(True)
        loss = F.cross_entropy(model(adversarial), labels)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + STEP_SIZE * gradient.sign()
        adversarial = (images + (moved - images).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    model.train().requires_grad_(True)
    return adversarial


def loaded(split: Split, batch: int) -> Batches:
    """Batches as a DataLoader makes them, one image after another."""
    yield from DataLoader(TensorDataset(split.pixels(slice(None)), split.labels), batch, shuffle=True)


def resident(split: Split, batch: int) -> Batches:
    """Batches as rows of the tensor that holds all."""
    for rows in torch.randperm(len(split.labels)).split(batch):
        yield split.pixels(rows), split.labels[rows]


def loop(model: nn.Module, optimizer: Any, batches: Batches, attack: Callable[[Tensor, Tensor], Tensor]) -> None:
    """One epoch."""
    for images, labels in batches:
        adversarial = attack(images, labels)
        optimizer.zero_grad()
        F.cross_entropy(model(adversarial), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


class Arms:
    """The same network, data and optimizer in every arm. Each arm is a function that trains for an epoch."""

    def __init__(self, network: str, batch: int, images: int, seed: int = 0) -> None:
        config = _config(network, batch, seed)
        self.trial = Trial(validated(TrialConfig, config, "the benchmark"))
        whole = self.trial.plan.train
        rows = torch.arange(images)
        pixels = whole.images[rows] if network in LENETS else torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8)
        self.split, self.batch = Split(pixels, whole.labels[rows]), batch
        self.plan = dataclasses.replace(self.trial.plan, train=self.split, epochs=10_000, validate_every=10_000)
        self._state = State()

    def make(self, wrapper: type[Plain], *, frozen: bool, is_resident: bool) -> tuple[nn.Module, Callable[[], None]]:
        """A user's network and its epoch."""
        model, batches = self._network(wrapper), resident if is_resident else loaded
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        theirs = torchattacks.PGD(model, eps=EPSILON, alpha=STEP_SIZE, steps=ATTACK_STEPS, random_start=True)
        attack = (lambda images, labels: pgd(model, images, labels)) if frozen else theirs
        return model, lambda: loop(model, optimizer, batches(self.split, self.batch), attack)

    def engine(self) -> Callable[[], None]:
        """`sweep`'s own epoch."""
        results = train(self.plan, self._state)
        return lambda: next(results) and None

    def _network(self, wrapper: type[Plain]) -> Plain:
        network = self.trial.network
        config = self.trial.config
        core = config.model.build(self.split.images.shape[1], tuple(self.split.images.shape[2:]), 10)
        core.load_state_dict(network.core.state_dict())
        if wrapper is LastingPlain:
            core = core.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return wrapper(core, float(network.mean.mean()), float(network.std.mean())).train()


def _config(network: str, batch: int, seed: int) -> dict[str, Any]:
    attack = {"name": "pgd", "num_steps": ATTACK_STEPS, "step_size": STEP_SIZE}
    return {
        "dataset": "mnist" if network in LENETS else "cifar10",
        "model": {"name": "lenet5", "variant": network} if network in LENETS else network,
        "threat_model": {"name": "linf", "epsilon": EPSILON},
        "defense": {"name": "adversarial_training", "epsilon": EPSILON, "attack": attack},
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 5e-4, "momentum": 0.9},
        "epochs": 1,
        "batch_size": batch,
        "seed": seed,
    }


def compare(arms: Arms, rounds: int) -> None:
    """Samples a second of every arm, in turns."""
    epochs = {
        "torchattacks in a DataLoader's loop": arms.make(Plain, frozen=False, is_resident=False)[1],
        "+ the input's gradient only": arms.make(Plain, frozen=True, is_resident=False)[1],
        "+ channels_last": arms.make(LastingPlain, frozen=True, is_resident=False)[1],
        "+ data resident": arms.make(LastingPlain, frozen=True, is_resident=True)[1],
        "the engine": arms.engine(),
    }
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            began = time.process_time()
            epoch()
            if number:  # the first round warms up
                times[name].append(time.process_time() - began)
    first, size = times["torchattacks in a DataLoader's loop"], len(arms.split.labels)
    print("| | samples a CPU second, median | least | most | times the first, median |\n|---|---|---|---|---|")
    for name, taken in times.items():
        rates = sorted(size / seconds for seconds in taken)
        ratio = statistics.median(before / now for before, now in zip(first, taken, strict=True))
        print(f"| {name} | {statistics.median(rates):.1f} | {rates[0]:.1f} | {rates[-1]:.1f} | {ratio:.2f} |")


def accuracies(network: str, batch: int, images: int, epochs: int) -> None:
    """Clean and PGD-10 accuracy of 1,000 validation images after the plain loop and after the engine, by seed."""
    print("\n| seed | the loop: clean | PGD-10 | the engine: clean | PGD-10 |\n|---|---|---|---|---|")
    for seed in range(3):
        torch.manual_seed(seed)
        arms = Arms(network, batch, images, seed)
        held = Split(arms.trial.validation.images[:1000], arms.trial.validation.labels[:1000])
        model, epoch = arms.make(Plain, frozen=False, is_resident=False)
        ours = arms.engine()
        for _ in range(epochs):
            epoch()
            ours()
        found = [judged(each, held.pixels(torch.arange(1000)), held.labels) for each in (model, arms.trial.network)]
        print("| " + " | ".join([str(seed), *(f"{figure:.1%}" for pair in found for figure in pair)]) + " |")


def judged(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """By torchattacks, both of them."""
    attack = torchattacks.PGD(model.eval(), eps=EPSILON, alpha=STEP_SIZE, steps=10, random_start=True)
    return accuracy(model, images, labels), accuracy(model, attack(images, labels), labels)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """In [0, 1]."""
    return float((model(images).argmax(1) == labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=(*LENETS, "resnet18"), default="lecun1998")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help="an epoch's, of every arm in every round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accuracy", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    compare(Arms(given.network, given.batch, given.batch * given.steps), given.rounds)
    if given.accuracy:
        accuracies(given.network, given.batch, images=100 * given.batch, epochs=2)


if __name__ == "__main__":
    main()
