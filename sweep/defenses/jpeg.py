from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sweep.defenses.preprocessing import Preprocessing
from sweep.models.preprocessor import Preprocessor, straight_through
from sweep.registry import register

_BLOCK = 8
# The standard's example tables (ITU T.81, annex K), which every common encoder scales by its quality.
_LUMINANCE = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMINANCE = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8] * 4,
]
_YCBCR = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


@register("jpeg")
class JPEG(Preprocessing):
    """Images as a JPEG encoder would leave them, without chroma subsampling (Das et al. 2017; Guo et al. 2018).

    Its rounding has no gradient. Its output is nearly its input, so gradients pass straight through all of it (BPDA
    with the identity, by which Athalye et al. 2018 broke it).
    """

    quality: int = Field(75, ge=1, le=100, description="of the encoder, as libjpeg counts it (100 rounds finest)")

    def build(self, channels: int) -> Compression:
        return Compression(self.quality, channels)


class Compression(Preprocessor):
    """Colours to luminance and chrominance, cosine transform of 8x8 blocks, rounding, and all of it back."""

    steps: Tensor
    cosines: Tensor
    colours: Tensor
    back: Tensor
    offset: Tensor

    def __init__(self, quality: int, channels: int) -> None:
        super().__init__()
        tables = [_LUMINANCE] + [_CHROMINANCE] * 2 if channels == 3 else [_LUMINANCE] * channels
        scale = 5_000 / quality if quality < 50 else 200 - 2 * quality
        steps = ((torch.tensor(tables, dtype=torch.float32) * int(scale) + 50) / 100).floor().clamp(1, 255)
        self.register_buffer("steps", steps[:, None, None], persistent=False)
        self.register_buffer("cosines", _cosines(), persistent=False)
        colours = torch.tensor(_YCBCR) if channels == 3 else torch.eye(channels)
        self.register_buffer("colours", colours, persistent=False)
        self.register_buffer("back", torch.linalg.inv(colours), persistent=False)
        offset = torch.tensor([0.0, 128.0, 128.0] if channels == 3 else [0.0] * channels)  # chrominance is signed
        self.register_buffer("offset", offset[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return straight_through(self.naive(images), images)

    def naive(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        padded = F.pad(255 * images, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
        planes = (torch.einsum("ij,njhw->nihw", self.colours, padded) + self.offset).round() - 128
        blocks = planes.unfold(2, _BLOCK, _BLOCK).unfold(3, _BLOCK, _BLOCK)  # [N, C, rows, columns, 8, 8]
        coefficients = (self.cosines @ blocks @ self.cosines.T / self.steps).round() * self.steps
        decoded = (self.cosines.T @ coefficients @ self.cosines).transpose(3, 4).reshape(planes.shape)
        planes = (decoded + 128).round().clamp(0, 255) - self.offset
        pixels = torch.einsum("ij,njhw->nihw", self.back, planes).round().clamp(0, 255) / 255
        return pixels[:, :, :height, :width]


def _cosines() -> Tensor:
    """The orthonormal 8x8 matrix of the discrete cosine transform (type II)."""
    frequency, place = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    matrix = torch.cos((2 * place + 1) * frequency * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
