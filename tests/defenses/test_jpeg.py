"""JPEG: what an encoder does to pixels, and that attacks see through it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sweep.defenses.jpeg import Compression


def scene(channels: int, size: tuple[int, int] = (29, 27)) -> Tensor:
    """A smooth picture with an edge and a little noise, whose sides are no multiples of eight: uint8 [C, H, W]."""
    down, right = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    planes = torch.stack([100 + 3 * down - 2 * right, 20 + 7 * right, 250 - 4 * down - 3 * right])[:channels].float()
    planes[:, 10:18, 12:] = 255 - planes[:, 10:18, 12:]
    noise = 8 * torch.randn(planes.shape, generator=torch.Generator().manual_seed(0))
    return (planes + noise).clamp(0, 255).to(torch.uint8)


def encoded(image: Tensor, quality: int) -> Tensor:
    """By Pillow's encoder and decoder, without subsampling: float [C, H, W] in 0 to 255."""
    pixels = image.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    picture = Image.fromarray(pixels if len(image) == 3 else pixels[:, :, 0])
    picture.save(file, "JPEG", quality=quality, subsampling=0 if len(image) == 3 else -1)
    decoded = np.asarray(Image.open(file)).astype(np.float32)
    return torch.from_numpy(decoded.reshape(*pixels.shape)).permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 50, 75, 95])
def test_pixels_are_those_of_an_encoder(channels: int, quality: int) -> None:
    image = scene(channels)
    expected = encoded(image, quality)
    found = 255 * Compression(quality, channels)(image[None].float() / 255)[0]
    assert (found - expected).abs().mean() < 0.9, "an encoder's own arithmetic is of whole numbers"
    assert (image - expected).abs().mean() > 1.5 * (found - expected).abs().mean()
    assert torch.allclose(found, found.round(), atol=1e-4)


def test_a_lower_quality_loses_more() -> None:
    images = scene(3)[None].float() / 255
    losses = [(Compression(quality, 3)(images) - images).abs().mean().item() for quality in (100, 90, 50, 10, 1)]
    assert losses == sorted(losses)
    assert losses[0] < 0.004
    assert losses[-1] > 0.05


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_gradients_pass_straight_through_and_the_naive_ones_are_zero(channels: int) -> None:
    images = torch.rand(2, channels, 12, 9).requires_grad_()
    weights = torch.randn(2, channels, 12, 9)
    compression = Compression(50, channels)
    (through,) = torch.autograd.grad((weights * compression(images)).sum(), images)
    (naive,) = torch.autograd.grad((weights * compression.naive(images)).sum(), images)
    assert torch.equal(through, weights)
    assert naive.abs().max() == 0
    assert torch.allclose(compression(images), compression.naive(images), atol=1e-6)
