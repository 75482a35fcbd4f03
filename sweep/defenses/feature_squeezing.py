from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sweep.alpha_rules import Measurement
from sweep.attacks import Adversary, Attack
from sweep.defenses.base import Clock, Defense, Losses, NamedDefense, Step
from sweep.defenses.standard import Standard
from sweep.models.network import Network
from sweep.registry import register


@register("feature_squeezing")
class FeatureSqueezing(Defense):
    """Fewer bits a pixel and a median filter in front of the network (Xu et al. 2018, section III).

    Rounding has no gradient, which hides the network from a naive attack rather than protecting it. So rounding passes
    gradients straight through (BPDA, Athalye et al. 2018): every attack here is made through the squeezer.
    """

    bit_depth: int = Field(4, ge=1, le=8, description="bits a pixel after squeezing (1 for MNIST, 4 to 5 for CIFAR-10)")
    median: Literal[1, 2, 3] = Field(1, description="side of the median filter's window in pixels; 1 filters nothing")
    training: NamedDefense = Field(default=Standard(), description="how the network behind the squeezer is trained")

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

    def preprocess(self, images: Tensor) -> Tensor:
        images = self.training.preprocess(images)
        levels = 2**self.bit_depth - 1
        squeezed = images + ((images * levels).round() / levels - images).detach()
        return median_filter(squeezed, self.median) if self.median > 1 else squeezed

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


def median_filter(images: Tensor, side: int) -> Tensor:
    """The median of each side x side window of each channel; its gradient goes to the median pixel.

    As SciPy's `median_filter` in mode "reflect", which Xu et al. used: an even window reaches up and left, its median
    is the higher of the middle two, and outside of the image its edge pixels are repeated.
    """
    before, after = side // 2, (side - 1) // 2
    padded = F.pad(images, (before, after, before, after), mode="replicate")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)
    return windows.flatten(-2).kthvalue(side * side // 2 + 1, -1).values
