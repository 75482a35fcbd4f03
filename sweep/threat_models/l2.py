from __future__ import annotations

import torch
from torch import Tensor

from sweep.registry import register
from sweep.threat_models.base import ThreatModel, per_example

_TINY = 1e-12  # keeps the scale of a zero offset finite


@register("l2")
class L2(ThreatModel):
    """The Euclidean length of the perturbation is at most epsilon (Carlini and Wagner 2017; Madry et al. 2018)."""

    def random_start(self, images: Tensor, epsilon: Tensor | float, generator: torch.Generator) -> Tensor:
        """Uniform in the ball: a normalised Gaussian direction, its length scaled by u^(1/d)."""
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        uniform = torch.rand(len(images), generator=generator, device=images.device, dtype=images.dtype)
        length = uniform ** (1 / noise[0].numel())
        return (images + self.direction(noise) * per_example(length, images) * epsilon).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Unit length however small the gradient: a sure network's entries have squares that are 0 in float32, so they
        are scaled by the largest of them first. A gradient of zero has the direction zero, and no step is taken."""
        largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        scaled = gradient / per_example(largest, gradient)
        return scaled / per_example(_length(scaled).clamp_min(1), gradient)

    def project(self, points: Tensor, images: Tensor, epsilon: Tensor | float) -> Tensor:
        # Clamping to the box after scaling cannot leave the ball: the image itself lies in the box, and projecting onto
        # a convex set never moves a point away from a point of that set.
        offset = points - images
        scale = (epsilon / _length(offset).clamp_min(_TINY)).clamp(max=1)
        return (images + offset * per_example(scale, offset)).clamp(0, 1)

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        return _length(first - second)


def _length(values: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return length
