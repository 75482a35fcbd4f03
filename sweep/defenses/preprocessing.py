"""What every preprocessing defense shares: it changes the images, and leaves the training to another defense."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from sweep.alpha_rules import Measurement
from sweep.attacks import Adversary, Attack
from sweep.defenses.base import Clock, Defense, Losses, NamedDefense, Step
from sweep.defenses.standard import Standard
from sweep.models.network import Network
from sweep.models.preprocessor import Chain, Preprocessor


class Preprocessing(Defense):
    """A preprocessor in front of a network that `training` trains: alone, or with adversarial training behind it.

    A new one is a file with its parameters, `build`, and its `Preprocessor`; what it declares (no gradient, random,
    trained beforehand) is what every attack goes through, without anyone remembering it.
    """

    training: NamedDefense = Field(default=Standard(), description="how the network behind it is trained")

    @abstractmethod
    def build(self, channels: int) -> Preprocessor:
        """This defense's own preprocessor, without that of `training`."""

    def preprocessor(self, channels: int) -> Preprocessor:
        """`training`'s preprocessor first, where it has one, then this one's."""
        own, inner = self.build(channels), self.training.preprocessor(channels)
        return own if inner is None else Chain(inner, own)

    @property
    def test_draws(self) -> int:
        return self.training.test_draws

    @property
    def preparation(self) -> float:
        return self.training.preparation

    @property
    def gradient_evaluations(self) -> float:
        return self.training.gradient_evaluations

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return self.training.attacks

    @property
    def refresh(self) -> Literal["batch", "epoch"]:
        return self.training.refresh

    @property
    def splits_batch_norm(self) -> bool:
        return self.training.splits_batch_norm

    def loss(self, step: Step) -> Losses:
        return self.training.loss(step)

    def epsilon_at(self, clock: Clock, accuracies: Sequence[float]) -> float:
        return self.training.epsilon_at(clock, accuracies)

    def alpha_at(self, clock: Clock, history: Sequence[Measurement]) -> float:
        return self.training.alpha_at(clock, history)

    def measurement(self, current_epsilon: float) -> tuple[Attack, float] | None:
        return self.training.measurement(current_epsilon)

    def order(self, size: int, generator: torch.Generator) -> Tensor:
        return self.training.order(size, generator)

    def craft(self, network: Network, images: Tensor, labels: Tensor, adversary: Adversary) -> Tensor:
        return self.training.craft(network, images, labels, adversary)
