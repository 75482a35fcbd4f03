"""A step of adversarial training: the plain loop that a user writes, what each measure makes of it, and the engine.

    python -m pip install --no-deps torchattacks
    python benchmarks/training_step.py --network lecun1998
    python benchmarks/training_step.py --network resnet18 --batch 32 --steps 2 --rounds 3 --no-accuracy

PGD-7 and an update, on batches of MNIST (LeNet-5) or of random pixels in CIFAR-10's shape (ResNet-18: what is in the
pixels costs nothing). The first arm is torchattacks' PGD in a DataLoader's loop; each arm below it has one measure
more; the last is the engine with the same numbers of steps, and where the CPU has bfloat16, once more in that. Each arm
has a process of its own, and they take turns in every round, on one thread, in CPU seconds, so that a busy machine
disturbs all alike; with more `--threads` in seconds of the clock, for a quiet one. Then, for LeNet-5, both ends train
from three seeds, and their accuracies stand beside each other.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import sweep.trial
from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.models.network import Network
from sweep.models.pooled import PooledConvolution
from sweep.registry import validated
from sweep.resources import computes_bfloat16
from sweep.training import State, train
from sweep.trial import Trial

EPSILON, STEP_SIZE, ATTACK_STEPS = 0.1, 0.025, 7
LEARNING_RATE, EPOCHS = 0.01, 4  # of 100 steps: where both have left the plateau that adversarial training begins on
LENETS = ("lecun1998", "madry")
Batches = Iterator[tuple[Tensor, Tensor]]


class Plain(nn.Module):
    """A network behind its normalisation, as users write it; in channels_last if told so."""

    def __init__(self, core: nn.Module, mean: float, std: float, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.core = core.to(memory_format=memory_format)  # type: ignore[call-overload]
        self.mean, self.std, self.memory_format = mean, std, memory_format

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.core(((images - self.mean) / self.std).contiguous(memory_format=self.memory_format))
        return logits


def written_plainly(core: nn.Module) -> nn.Module:
    """A convolution, its activation and its pool as three layers of torch's, with the same parameters."""
    if not isinstance(core, nn.Sequential):
        return core
    layers: list[nn.Module] = []
    for layer in core:
        if isinstance(layer, PooledConvolution):
            channels, maps, kernel = layer.in_channels, layer.out_channels, layer.kernel_size
            layers.append(nn.Conv2d(channels, maps, kernel, padding=layer.padding))  # type: ignore[arg-type]
            layers[-1].load_state_dict(layer.state_dict())
        elif isinstance(layer, nn.ReLU) and isinstance(layers[-1], nn.Conv2d):
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


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


@dataclass(frozen=True)
class Measures:
    """What an arm does better than the plain loop; `engine`: all, by `sweep` itself."""

    frozen: bool = False
    channels_last: bool = False
    resident: bool = False
    keeps_memory: bool = False
    pooled: bool = False
    engine: bool = False
    bfloat16: bool = False


class Arm:
    """One training of the same network on the same data with the same optimizer; `epoch` trains for an epoch."""

    def __init__(self, network: str, batch: int, images: int, measures: Measures, seed: int = 0) -> None:
        torch.manual_seed(seed)
        precision = "bfloat16" if measures.bfloat16 else "float32"
        config = validated(TrialConfig, _config(network, batch, seed) | {"precision": precision}, "the benchmark")
        trial = Trial(config)
        judged, split, self.held = trial.network, first_images(trial.plan.train, images), trial.validation
        if network not in LENETS:
            pixels = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8)
            core = config.model.build(3, (32, 32), 10)
            judged, split = Network(core, [0.5], [0.25], precision=config.precision), Split(pixels, split.labels)
        if measures.engine:
            self.model: nn.Module = judged
            optimizer = config.optimizer.build(judged.parameters())
            plan = replace(trial.plan, network=judged, optimizer=optimizer, train=split)
            results = train(replace(plan, epochs=10_000, validate_every=10_000), State())
            self.epoch: Callable[[], object] = lambda: next(results)
            return
        core = judged.core.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        core = core if measures.pooled else written_plainly(core)
        memory_format = torch.channels_last if measures.channels_last else torch.contiguous_format
        model = Plain(core, float(judged.mean.mean()), float(judged.std.mean()), memory_format).train()
        theirs = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
        plain = torchattacks.PGD(model, eps=EPSILON, alpha=STEP_SIZE, steps=ATTACK_STEPS, random_start=True)
        attack = (lambda images, labels: pgd(model, images, labels)) if measures.frozen else plain
        batches = resident if measures.resident else loaded
        self.model, self.epoch = model, lambda: loop(model, theirs, batches(split, batch), attack)


def first_images(split: Split, count: int) -> Split:
    """Of the split, over and over where it has fewer."""
    rows = torch.arange(count) % len(split.labels)
    return Split(split.images[rows], split.labels[rows])


class Process:
    """An arm in a process of its own: what one sets for a process, its way with memory, touches no other arm."""

    def __init__(self, network: str, batch: int, images: int, threads: int, measures: Measures) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, (network, batch, images, threads, measures))
        self._clock = time.process_time if threads == 1 else time.monotonic

    def seconds(self) -> float:
        """One epoch's, by the clock or of CPU."""
        return self._pool.submit(_epoch, self._clock).result()


def _begin(network: str, batch: int, images: int, threads: int, measures: Measures) -> None:
    global _arm  # noqa: PLW0603  # a worker process holds one
    torch.set_num_threads(threads)
    if not (measures.keeps_memory or measures.engine):
        sweep.trial.keep_freed_memory = lambda: None
    _arm = Arm(network, batch, images, measures)


def _epoch(clock: Callable[[], float]) -> float:
    began = clock()
    _arm.epoch()
    return clock() - began


def _config(network: str, batch: int, seed: int) -> dict[str, Any]:
    attack = {"name": "pgd", "num_steps": ATTACK_STEPS, "step_size": STEP_SIZE}
    return {
        "dataset": "mnist" if network in LENETS else "digits",
        "model": {"name": "lenet5", "variant": network} if network in LENETS else network,
        "threat_model": {"name": "linf", "epsilon": EPSILON},
        "defense": {"name": "adversarial_training", "epsilon": EPSILON, "attack": attack},
        "optimizer": {"name": "sgd", "learning_rate": LEARNING_RATE, "weight_decay": 5e-4, "momentum": 0.9},
        "epochs": 1,
        "batch_size": batch,
        "seed": seed,
    }


ARMS = {
    "torchattacks in a DataLoader's loop": Measures(),
    "+ the input's gradient only": Measures(frozen=True),
    "+ channels_last": Measures(True, True),
    "+ data resident": Measures(True, True, True),
    "+ freed memory kept": Measures(True, True, True, True),
    "+ convolution and pool as one": Measures(True, True, True, True, True),
    "the engine": Measures(engine=True),
}
if computes_bfloat16(torch.device("cpu")):
    ARMS["the engine, in bfloat16"] = Measures(engine=True, bfloat16=True)


def compare(network: str, batch: int, steps: int, rounds: int, threads: int) -> None:
    """Samples a second of every arm, in turns."""
    processes = {name: Process(network, batch, batch * steps, threads, measures) for name, measures in ARMS.items()}
    times: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(rounds + 1):
        for name, process in processes.items():
            seconds = process.seconds()
            if number:  # the first round warms up
                times[name].append(seconds)
    first, size = times["torchattacks in a DataLoader's loop"], batch * steps
    second = "CPU second" if threads == 1 else "second"
    print(f"| | samples a {second}, median | least | most | times the first, median |\n|---|---|---|---|---|")
    for name, taken in times.items():
        rates = sorted(size / seconds for seconds in taken)
        ratio = statistics.median(before / now for before, now in zip(first, taken, strict=True))
        print(f"| {name} | {statistics.median(rates):.1f} | {rates[0]:.1f} | {rates[-1]:.1f} | {ratio:.2f} |")


def accuracies(network: str, batch: int, images: int, epochs: int) -> None:
    """Clean and PGD-10 accuracy of 1,000 validation images after the plain loop and after the engine, by seed."""
    print("\n| seed | the loop: clean | PGD-10 | the engine: clean | PGD-10 |\n|---|---|---|---|---|")
    for seed in range(3):
        found = [f"{seed}"]
        for measures in (Measures(), Measures(engine=True)):
            arm = Arm(network, batch, images, measures, seed)
            for _ in range(epochs):
                arm.epoch()
            clean, attacked = judged(arm.model, arm.held.pixels(torch.arange(1000)), arm.held.labels[:1000])
            found += [f"{clean:.1%}", f"{attacked:.1%}"]
        print(f"| {' | '.join(found)} |", flush=True)


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
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accuracy", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    compare(given.network, given.batch, given.steps, given.rounds, given.threads)
    if given.accuracy:
        accuracies(given.network, given.batch, images=100 * given.batch, epochs=EPOCHS)


if __name__ == "__main__":
    main()
