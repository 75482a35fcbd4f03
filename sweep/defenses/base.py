"""The defense owns the loss of one training step, and says how its radius and loss weight move.

The training loop (`sweep/training.py`) asks, in this order: `alpha_at` and `order` when an epoch begins, `craft` for
the adversarial copy of all examples where it is made once an epoch, `epsilon_at` and `loss` for every batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor

from sweep.alpha_rules import Measurement
from sweep.attacks import Adversary, Attack, NamedAttack, Objective
from sweep.attacks.pgd import PGD
from sweep.models.network import Network, crafting
from sweep.models.preprocessor import Preprocessor
from sweep.registry import Component, named
from sweep.schedules import NamedSchedule
from sweep.schedules.constant import Constant
from sweep.threat_models import ThreatModel


@dataclass(frozen=True)
class Clock:
    """Where training stands: `epoch` of `epochs`, `step` of the epoch's `steps`, all counted from 0."""

    epoch: int
    epochs: int
    step: int = 0
    steps: int = 1

    @property
    def progress(self) -> float:
        """The fraction of training that lies behind, in [0, 1)."""
        return (self.epoch + self.step / self.steps) / self.epochs


@dataclass(frozen=True)
class Step:
    """One training step as a defense sees it. `epsilon` and `alpha` are scalar tensors: their values never branch."""

    network: Network
    images: Tensor  # [N, C, H, W] in [0, 1]
    labels: Tensor  # [N]
    threat_model: ThreatModel
    epsilon: Tensor
    alpha: Tensor
    generator: torch.Generator
    adversarial: Tensor | None = (
        None  # [N, C, H, W] made at the epoch's beginning, where the defense refreshes by epoch
    )
    is_adversarial: Tensor | None = None  # [N] booleans, where the batch is drawn from the union of both sets

    @property
    def adversary(self) -> Adversary:
        return Adversary(self.threat_model, self.epsilon, self.generator)


@dataclass(frozen=True)
class Losses:
    """What one step cost: `total` is differentiated; the rest is [N] or [M] detached values for the running figures."""

    total: Tensor
    clean: Tensor | None = None
    adversarial: Tensor | None = None
    clean_correct: Tensor | None = None
    adversarial_correct: Tensor | None = None


class Defense(Component):
    """A way of training, and possibly of preprocessing, that should make a network robust."""

    kind: ClassVar[str] = "defense"

    @abstractmethod
    def loss(self, step: Step) -> Losses:
        """The loss of one batch."""

    @property
    @abstractmethod
    def gradient_evaluations(self) -> float:
        """Forward and backward passes per training example and epoch (the cost in epoch-equivalents)."""

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The attacks that training uses."""
        return ()

    @property
    def refresh(self) -> Literal["batch", "epoch"]:
        """When adversarial examples are made."""
        return "batch"

    @property
    def splits_batch_norm(self) -> bool:
        """Whether batch norm keeps separate statistics for clean and for adversarial batches."""
        return False

    @property
    def differentiates_twice(self) -> bool:
        """Whether its loss holds a gradient, which is then differentiated in its turn."""
        return False

    @property
    def test_draws(self) -> int:
        """Draws whose mean is a prediction at test, and which every attack goes through; 0 where nothing is random."""
        return 0

    @property
    def preparation(self) -> float:
        """Gradient evaluations per training example spent once, before the first epoch."""
        return 0.0

    def preprocessor(self, channels: int) -> Preprocessor | None:
        """What is applied before normalisation, in training and under attack, if anything is."""
        return None

    def epsilon_at(self, clock: Clock, accuracies: Sequence[float]) -> float:
        """The training radius, from the past epochs' adversarial accuracies too. 0 where nothing is attacked."""
        return 0.0

    def alpha_at(self, clock: Clock, history: Sequence[Measurement]) -> float:
        """The clean loss's weight. 1 where nothing is attacked."""
        return 1.0

    def measurement(self, current_epsilon: float) -> tuple[Attack, float] | None:
        """The attack and radius with which alpha is measured on the validation split after an epoch, if it is."""
        return None

    def order(self, size: int, generator: torch.Generator) -> Tensor:
        """The epoch's examples in the order they are met; an index of `size` or more means an adversarial copy."""
        return torch.randperm(size, generator=generator)

    def craft(self, network: Network, images: Tensor, labels: Tensor, adversary: Adversary) -> Tensor:
        """Adversarial examples for training; only defenses that are attacked in training make them."""
        raise TypeError(f"{self.name} makes no adversarial examples")


class AttackedDefense(Defense):
    """A defense that attacks its own network while training, at a radius that a schedule moves."""

    epsilon: float = Field(gt=0, le=100, description="training radius in [0,1] pixel units: write 8 / 255")
    attack: NamedAttack = Field(default=PGD(num_steps=7), description="inner attack")
    epsilon_schedule: NamedSchedule = Field(default=Constant(), description="multiple of epsilon over training")
    epsilon_update: Literal["epoch", "step"] = Field("epoch", description="how often the radius moves")
    increase: Literal["after", "before"] = Field(
        "after",
        description="whether the radius moves after the epoch's examples are made (Algorithm 1's order) or before",
    )
    batch_norm: Literal["eval", "train"] = Field(
        "eval", description="mode of batch norm and dropout while examples are made (statistics never move)"
    )

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (self.attack,)

    def epsilon_at(self, clock: Clock, accuracies: Sequence[float]) -> float:
        step = clock.step / clock.steps if self.epsilon_update == "step" else 0.0
        progress = (clock.epoch + step + (self.increase == "before")) / clock.epochs
        return self.epsilon * self.epsilon_schedule.factor(min(progress, 1.0), accuracies)

    def alpha_at(self, clock: Clock, history: Sequence[Measurement]) -> float:
        return 0.0

    def craft(
        self, network: Network, images: Tensor, labels: Tensor, adversary: Adversary, objective: Objective | None = None
    ) -> Tensor:
        with crafting(network, self.batch_norm):
            return self.attack.perturb(network, images, labels, adversary, objective=objective)


NamedDefense = Annotated[SerializeAsAny[Defense], named("defense")]


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.detach().argmax(1) == labels
