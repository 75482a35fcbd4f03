from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from sweep.defenses.preprocessing import Preprocessing
from sweep.models.preprocessor import Preprocessor, straight_through
from sweep.registry import register


@register("feature_squeezing")
class FeatureSqueezing(Preprocessing):
    """Fewer bits a pixel and a median filter in front of the network (Xu et al. 2018, section III).

    Rounding has no gradient, which hides the network from a naive attack rather than protecting it. So rounding passes
    gradients straight through (BPDA, Athalye et al. 2018): every attack here is made through the squeezer.
    """

    bit_depth: int = Field(4, ge=1, le=8, description="bits a pixel after squeezing (1 for MNIST, 4 to 5 for CIFAR-10)")
    median: Literal[1, 2, 3] = Field(1, description="side of the median filter's window in pixels; 1 filters nothing")

    def build(self, channels: int) -> Squeezer:
        return Squeezer(self.bit_depth, self.median)


class Squeezer(Preprocessor):
    """Rounds pixels to 2^bit_depth levels, then takes the median of each window."""

    def __init__(self, bit_depth: int, median: int) -> None:
        super().__init__()
        self.levels = 2**bit_depth - 1
        self.median = median

    def forward(self, images: Tensor) -> Tensor:
        return self._filtered(straight_through(self._rounded(images), images))

    def naive(self, images: Tensor) -> Tensor:
        return self._filtered(self._rounded(images))

    def _rounded(self, images: Tensor) -> Tensor:
        rounded: Tensor = (images * self.levels).round() / self.levels
        return rounded

    def _filtered(self, images: Tensor) -> Tensor:
        return median_filter(images, self.median) if self.median > 1 else images


def median_filter(images: Tensor, side: int) -> Tensor:
    """The median of each side x side window of each channel; its gradient goes to the median pixel.

    As SciPy's `median_filter` in mode "reflect", which Xu et al. used: an even window reaches up and left, its median
    is the higher of the middle two, and outside of the image its edge pixels are repeated.
    """
    before, after = side // 2, (side - 1) // 2
    padded = F.pad(images, (before, after, before, after), mode="replicate")
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)
    return windows.flatten(-2).kthvalue(side * side // 2 + 1, -1).values
