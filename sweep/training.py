"""Training, on one page: Algorithm 1 of Delviz et al. (2024), where each defense has its own line for the loss.

    for each epoch:
        epsilon, alpha  <-  their schedule and rule
        for each batch (x, y):
            x_adv  <-  x + eta, by the defense's inner attack within epsilon
            theta  <-  theta - learning_rate * gradient of [alpha L(x) + (1 - alpha) L(x_adv)]
        measure clean and adversarial accuracy on the validation split

`train` is a generator of one EpochResult an epoch. It knows nothing of Ray, Optuna, MLflow or files. Every random
stream is derived from (seed, purpose, epoch): a state saved after an epoch holds no generators and resumes bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sweep.alpha_rules import Measurement
from sweep.attacks import Adversary, Attack
from sweep.augmentation import Augmentation, augment
from sweep.datasets import Split
from sweep.defenses import Clock, Defense, Step
from sweep.errors import Diverged
from sweep.evaluation import evaluate, measure
from sweep.figures import Figures, refuse_non_finite
from sweep.models.network import Network, viewed
from sweep.optimizers import Stepper
from sweep.resources import peak_memory
from sweep.schedules import Schedule
from sweep.seeding import generator, layer_randomness
from sweep.threat_models import ThreatModel

_LOOK_EVERY = 20  # steps between looks for a non-finite loss: each look waits for the device


@dataclass(frozen=True)
class Plan:
    """Everything a training needs, as objects. `sweep.trial` makes it from a configuration."""

    network: Network
    optimizer: Stepper
    learning_rate: float
    learning_rate_schedule: Schedule
    defense: Defense
    threat_model: ThreatModel
    train: Split
    validation: Split
    attacks: tuple[Attack, ...]  # the validation split's
    epochs: int
    batch_size: int
    augmentation: Augmentation
    validate_every: int
    seed: int
    device: torch.device

    def steps(self, examples: int) -> int:
        return math.ceil(examples / self.batch_size)


@dataclass(frozen=True)
class EpochResult:
    """One epoch's figures, by metric name; `epoch` counts from 1."""

    epoch: int
    metrics: dict[str, float]


@dataclass
class State:
    """What a resumed training must know beside parameters and optimizer: plain numbers only."""

    epoch: int = 0  # epochs that lie behind
    history: list[Measurement] = field(default_factory=list)
    gradient_evaluations: int = 0  # the defense's: training and alpha's measurement
    validation_gradient_evaluations: int = 0  # the judge's
    seconds: float = 0.0


def train(plan: Plan, state: State) -> Iterator[EpochResult]:
    """Train from `state` on, moving it forward; one result an epoch. Raises Diverged at a non-finite figure."""
    while state.epoch < plan.epochs:
        began = time.perf_counter()
        clock = Clock(state.epoch, plan.epochs)
        spent = plan.network.gradient_evaluations
        if not state.epoch:
            plan.network.prepare(plan.train.pixels, len(plan.train))
        with layer_randomness(plan.seed, "layers", clock.epoch), viewed(plan.network, "training"):
            figures = _epoch(plan, clock, state)
        measurement = _measure(plan, figures)
        trained = plan.network.gradient_evaluations
        state.epoch += 1
        metrics = figures.metrics() | _validate(plan, state.epoch)
        state.history.append(measurement)
        state.gradient_evaluations += trained - spent
        state.validation_gradient_evaluations += plan.network.gradient_evaluations - trained
        state.seconds += time.perf_counter() - began
        metrics |= _cost(plan, state)
        refuse_non_finite(metrics, f"in epoch {state.epoch}")
        yield EpochResult(state.epoch, metrics)


def _epoch(plan: Plan, clock: Clock, state: State) -> Figures:
    """One pass over the training split."""
    accuracies = [past.adversarial_accuracy for past in state.history]
    alpha = torch.tensor(plan.defense.alpha_at(clock, state.history), device=plan.device)
    order = plan.defense.order(len(plan.train), generator(plan.seed, "order", clock.epoch)).to(plan.device)
    attack_randomness = generator(plan.seed, "attack", clock.epoch, device=plan.device)
    augmentation_randomness = generator(plan.seed, "augmentation", clock.epoch)
    library = _adversarial_copy(plan, clock, accuracies, attack_randomness) if plan.defense.refresh == "epoch" else None
    figures = Figures(alpha=float(alpha))
    steps = plan.steps(len(order))
    plan.network.train()
    for number, rows in enumerate(torch.split(order, plan.batch_size)):
        now = Clock(clock.epoch, plan.epochs, number, steps)
        figures.epsilon = plan.defense.epsilon_at(now, accuracies)
        figures.learning_rate = plan.learning_rate * plan.learning_rate_schedule.factor(now.progress)
        plan.optimizer.set_learning_rate(figures.learning_rate)
        which = rows % len(plan.train)
        images, adversarial = _augmented(plan, which, library, augmentation_randomness)
        losses = plan.defense.loss(
            Step(
                network=plan.network,
                images=images,
                labels=plan.train.labels[which],
                threat_model=plan.threat_model,
                epsilon=torch.tensor(figures.epsilon, device=plan.device),
                alpha=alpha,
                generator=attack_randomness,
                adversarial=adversarial,
                is_adversarial=rows >= len(plan.train),
            )
        )
        plan.optimizer.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        plan.optimizer.step()
        figures.add(losses)
        if (number % _LOOK_EVERY == 0 or number == steps - 1) and not math.isfinite(figures.total_loss):
            raise Diverged(f"the loss is not finite in epoch {clock.epoch + 1}, by step {number + 1} of {steps}")
    return figures


def _augmented(
    plan: Plan, rows: Tensor, library: Tensor | None, randomness: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """A batch, and its adversarial copy where the epoch has one, moved alike: a pair stays a pair."""
    images = plan.train.pixels(rows)
    if library is None:
        return augment(images, plan.augmentation, randomness), None
    both = augment(torch.cat([images, library[rows]], 1), plan.augmentation, randomness)
    moved, adversarial = both.chunk(2, 1)
    return moved, adversarial


def _adversarial_copy(plan: Plan, clock: Clock, accuracies: list[float], randomness: torch.Generator) -> Tensor:
    """The training split's adversarial copy [N, C, H, W], by the parameters as they stand: Algorithm 1, literally."""
    epsilon = torch.tensor(plan.defense.epsilon_at(clock, accuracies), device=plan.device)
    adversary = Adversary(plan.threat_model, epsilon, randomness)
    rows = torch.arange(len(plan.train), device=plan.device)
    return torch.cat(
        [
            plan.defense.craft(plan.network, plan.train.pixels(part), plan.train.labels[part], adversary)
            for part in torch.split(rows, plan.batch_size)
        ]
    )


def _measure(plan: Plan, figures: Figures) -> Measurement:
    """What alpha is made of: the validation split under the defense's attack, or else the epoch's running figures."""
    how = plan.defense.measurement(figures.epsilon)
    if how is None:
        return figures.measurement()
    attack, epsilon = how
    return measure(plan.network, plan.validation, attack, plan.threat_model, epsilon, plan.seed)


def _validate(plan: Plan, epoch: int) -> dict[str, float]:
    if epoch % plan.validate_every and epoch != plan.epochs:
        return {}
    began = time.perf_counter()
    verdicts = evaluate(plan.network, plan.validation, plan.attacks, plan.threat_model, plan.seed)
    return verdicts.metrics("validation") | {"validation/seconds": time.perf_counter() - began}


def _cost(plan: Plan, state: State) -> dict[str, float]:
    return {
        "gradient_evaluations": state.gradient_evaluations,
        "validation/gradient_evaluations": state.validation_gradient_evaluations,
        "seconds": state.seconds,
        "peak_memory_mb": peak_memory(plan.device),
    }
