"""Augmentation on the device, a batch at a time, drawn from the generator that is passed in."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Literal["none", "crop", "crop_flip"]
_PADDING = 4  # pixels of zeros on each side before a random crop, as usual on CIFAR-10


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Images [N, C, H, W] shifted by up to 4 pixels each way (zeros move in), and mirrored with probability 1/2."""
    if how == "none":
        return images
    shifted = _crop(images, generator)
    return _flip(shifted, generator) if how == "crop_flip" else shifted


def _crop(images: Tensor, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    padded = F.pad(images, [_PADDING] * 4)
    shift = torch.randint(0, 2 * _PADDING + 1, (2, n, 1), generator=generator).to(images.device)
    rows = shift[0] + torch.arange(height, device=images.device)
    columns = shift[1] + torch.arange(width, device=images.device)
    first = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[first, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
