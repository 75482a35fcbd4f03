from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from sweep.defenses.preprocessing import Preprocessing
from sweep.models.preprocessor import Preprocessor
from sweep.registry import register


@register("noise_injection")
class NoiseInjection(Preprocessing):
    """Gaussian noise added to the pixels, at training and at test (a first layer of Liu et al. 2018, RSE).

    Every training image has its own noise. At test the prediction is the mean of the logits over `draws` draws, which a
    trial's seed gives and the attacker knows: attacks climb the very mean that is judged (EOT, Athalye et al. 2018).
    """

    sigma: float = Field(0.1, gt=0, le=1, description="standard deviation in [0,1] pixel units (0.01 to 0.3)")
    draws: int = Field(20, ge=1, le=1_000, description="draws at test; an attack's gradient costs as many passes")

    @property
    def test_draws(self) -> int:
        return max(self.draws, self.training.test_draws)

    def build(self, channels: int) -> Noise:
        return Noise(self.sigma)


class Noise(Preprocessor):
    """x + sigma z, not clipped: the network sees Gaussian noise on black and white pixels too."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        shape = images.shape if self.training else (1, *images.shape[1:])
        return images + self.sigma * torch.randn(shape, device=images.device, dtype=images.dtype)

    def naive(self, images: Tensor) -> Tensor:
        """One draw, where the judge takes the mean of many."""
        noisy: Tensor = self(images)
        return noisy
