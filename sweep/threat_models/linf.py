from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from sweep.registry import register
from sweep.threat_models.base import ThreatModel


@register("linf")
class Linf(ThreatModel):
    """Every pixel may move by at most epsilon (Goodfellow et al. 2015; Madry et al. 2018, section 2).

    At 1 every image is in reach of every other one, so a greater radius is one of [0, 255] pixels by mistake.
    """

    epsilon: float = Field(gt=0, le=1, description="radius everyone is judged at, in [0,1] pixels: write 8 / 255")

    def random_start(self, images: Tensor, epsilon: Tensor | float, generator: torch.Generator) -> Tensor:
        noise = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return (images + (2 * noise - 1) * epsilon).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, points: Tensor, images: Tensor, epsilon: Tensor | float) -> Tensor:
        return torch.minimum(torch.maximum(points, images - epsilon), images + epsilon).clamp(0, 1)

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).abs().flatten(1).amax(1)
