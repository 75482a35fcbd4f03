from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sweep.defenses.preprocessing import Preprocessing
from sweep.models.preprocessor import Preprocessor, straight_through
from sweep.registry import register

_KERNELS = {4: [[0, -1, 0], [-1, 4, -1], [0, -1, 0]], 8: [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]}


@register("laplacian_sharpening")
class LaplacianSharpening(Preprocessing):
    """Edges made stronger in front of the network: x + strength (x - its neighbours' mean), clipped to [0, 1].

    It was proposed as preemptive: the defender sharpens, and the adversary may then change the sharpened image, in a
    ball around it. Here it is granted no such order: as for every other defense, the ball lies around the image itself,
    the adversary knows of the sharpening and differentiates it. Sharpening enlarges what an attacker adds, so expect
    no gain; that of the naive figure, made on the network behind it, is against transfer alone.
    """

    strength: float = Field(1.0, ge=0, le=10, description="share of the difference that is added (0 to 3)")
    neighbours: Literal[4, 8] = Field(4, description="pixels that make the mean: beside, or also diagonal")

    def build(self, channels: int) -> Sharpening:
        return Sharpening(self.strength, self.neighbours)


class Sharpening(Preprocessor):
    """Outside of the image its edge pixels are repeated. Clipping passes gradients straight through: a black pixel
    beside a stroke stays black until it has risen by what clipping took away, which no derivative there would tell."""

    kernel: Tensor

    def __init__(self, strength: float, neighbours: Literal[4, 8]) -> None:
        super().__init__()
        self.strength = strength
        kernel = torch.tensor(_KERNELS[neighbours], dtype=torch.float32) / neighbours
        self.register_buffer("kernel", kernel[None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
        edges = F.conv2d(padded, self.kernel.expand(channels, 1, 3, 3), groups=channels)
        sharpened = images + self.strength * edges
        return straight_through(sharpened.clamp(0, 1), sharpened)
