from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sweep.defenses.preprocessing import Preprocessing
from sweep.models.preprocessor import Pixels, Preprocessor
from sweep.registry import register
from sweep.seeding import generator

_BATCH = 64
_LEARNING_RATE = 0.01  # Adam's: on 1,000 digits it leaves a quarter of the error that MagNet's 0.001 leaves


@register("autoencoder_reconstruction")
class AutoencoderReconstruction(Preprocessing):
    """A denoising autoencoder in front of the network (Meng and Chen 2017, MagNet's reformer; Gu and Rigazio 2015).

    It learns to restore clean training images from noise, before the network that sees its reconstructions is trained;
    then it stays as it is. It is differentiable, and attacked as the first layers of the network that it is.
    """

    sigma: float = Field(0.1, ge=0, le=1, description="noise it learns to remove, in [0,1] pixel units (0.1 to 0.3)")
    width: int = Field(16, ge=1, le=512, description="feature maps of its layers")
    bottleneck: int = Field(8, ge=1, le=512, description="feature maps at a quarter of the pixels (8 to 64)")
    passes: int = Field(
        3, ge=1, le=1_000, description="passes over the training split, each counted as an epoch's cost"
    )

    @property
    def preparation(self) -> float:
        return self.passes + self.training.preparation

    def build(self, channels: int) -> Autoencoder:
        return Autoencoder(channels, self.sigma, self.width, self.bottleneck, self.passes)


class Autoencoder(Preprocessor):
    """Two convolutions down to half the sides, two up again; its output is an image in [0, 1]."""

    def __init__(self, channels: int, sigma: float, width: int, bottleneck: int, passes: int) -> None:
        super().__init__()
        self.sigma = sigma
        self.passes = passes
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, bottleneck, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(bottleneck, width, 3, padding=1),
            nn.SiLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, channels, 3, padding=1),
        )
        self.requires_grad_(False)  # the network's optimizer has no part in it

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        restored: Tensor = self.layers(images).sigmoid()
        return restored[:, :, :height, :width]

    def prepare(self, pixels: Pixels, size: int, seed: int) -> int:
        """Adam on the squared error, each image with new noise in every pass."""
        device = next(self.parameters()).device
        order_randomness = generator(seed, "preprocessing", "order")
        noise_randomness = generator(seed, "preprocessing", "noise", device=device)
        self.requires_grad_(True)
        adam = torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE)
        for _ in range(self.passes):
            for rows in torch.split(torch.randperm(size, generator=order_randomness).to(device), _BATCH):
                images = pixels(rows)
                noise = torch.randn(images.shape, generator=noise_randomness, device=device)
                error = F.mse_loss(self(images + self.sigma * noise), images)
                adam.zero_grad()
                error.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                adam.step()
        self.requires_grad_(False)
        return self.passes * size
