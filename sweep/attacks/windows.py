"""Square's geometry: which point it asks about next, in the Linf and in the L2 ball (Andriushchenko et al. 2020).

Windows may touch every edge of the image, as in the paper (the authors' code leaves out the last row and column), and
each example draws its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache

import torch
from torch import Tensor

from sweep.attacks.base import Adversary

_TINY = 1e-12  # keeps the scale of an empty window finite
_TILES = 5  # a side, in the L2 start
_PLACES = 5  # uniform draws before the channels' signs: two windows' rows and columns, and an orientation
Window = tuple[Tensor, Tensor, Tensor, Tensor]


class Windows(ABC):
    """Where the search starts, and its next point from the best so far."""

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """[N, 5 + C] uniform numbers: all that one proposal for each of N images needs."""
        return torch.rand(len(images), _PLACES + images.shape[1], generator=generator, device=images.device)

    @abstractmethod
    def start(self, images: Tensor, adversary: Adversary) -> Tensor:
        """The first points [N, C, H, W] that are asked about."""

    @abstractmethod
    def propose(self, best: Tensor, images: Tensor, adversary: Adversary, area: float, draws: Tensor) -> Tensor:
        """The next points: `best` with a window of `area` pixels filled anew, in the ball and the box."""


class LinfWindows(Windows):
    """Every pixel at an end of its interval: stripes first, then squares of one sign a channel (algorithm 2)."""

    def start(self, images: Tensor, adversary: Adversary) -> Tensor:
        draws = torch.rand(images[:, :, :1].shape, generator=adversary.generator, device=images.device)
        return self._shifted(images, signs(draws), adversary)

    def propose(self, best: Tensor, images: Tensor, adversary: Adversary, area: float, draws: Tensor) -> Tensor:
        side = min(max(round(math.sqrt(area)), 1), *images.shape[2:])
        inside = window(draws[:, 0], draws[:, 1], side, images)
        tried = best.clone()
        tried[inside] = self._shifted(images[inside], signs(draws[:, _PLACES:, None, None]), adversary)
        return tried

    def _shifted(self, images: Tensor, sign: Tensor, adversary: Adversary) -> Tensor:
        return adversary.threat_model.project(images + sign * adversary.epsilon, images, adversary.epsilon)


class L2Windows(Windows):
    """Two-sided bumps, always of the full length: one window's length is moved into another (algorithm 3)."""

    def start(self, images: Tensor, adversary: Adversary) -> Tensor:
        """A grid of bumps that covers the image, each with its own sign and orientation."""
        count, channels, height, width = images.shape
        side = max(min(height, width) // _TILES, 1)
        delta = torch.zeros_like(images)
        for top in range((height % side) // 2, height - side + 1, side):
            for left in range((width % side) // 2, width - side + 1, side):
                draws = torch.rand(count, 1 + channels, generator=adversary.generator, device=images.device)
                bumps = oriented(side, draws[:, 0], images) * signs(draws[:, 1:, None, None])
                delta[:, :, top : top + side, left : left + side] = bumps
        return _at_full_length(delta, images, adversary)

    def propose(self, best: Tensor, images: Tensor, adversary: Adversary, area: float, draws: Tensor) -> Tensor:
        side = max(round(math.sqrt(area)), 3)
        side = min(side + 1 - side % 2, *images.shape[2:])  # odd, so that a bump has a middle
        filled = window(draws[:, 0], draws[:, 1], side, images)
        emptied = window(draws[:, 2], draws[:, 3], side, images)
        delta = best - images
        union = torch.zeros_like(delta)
        union[filled] = union[emptied] = 1
        unused = (adversary.epsilon**2 - _square(delta).sum(1, keepdim=True)).clamp_min(0)
        available = (_square(delta * union) + unused / images.shape[1]).sqrt()
        bumps = oriented(side, draws[:, 4], images) * signs(draws[:, _PLACES:, None, None])
        bumps = bumps + _unit(delta[filled])
        delta[emptied] = 0
        delta[filled] = _unit(bumps) * available
        return _at_full_length(delta, images, adversary)


GEOMETRIES: dict[str, Windows] = {"linf": LinfWindows(), "l2": L2Windows()}


def window(row: Tensor, column: Tensor, side: int, images: Tensor) -> Window:
    """Index of a square in every channel of every image, its corner given by [N] numbers in [0, 1)."""
    count, channels, height, width = images.shape
    steps = torch.arange(side, device=images.device)
    tops = (row * (height - side + 1)).long().clamp(max=height - side)  # a product may be rounded up to its bound
    lefts = (column * (width - side + 1)).long().clamp(max=width - side)
    examples = torch.arange(count, device=images.device).view(-1, 1, 1, 1)
    maps = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    return examples, maps, (tops[:, None] + steps)[:, None, :, None], (lefts[:, None] + steps)[:, None, None, :]


def signs(draws: Tensor) -> Tensor:
    """-1 or 1, equally likely, from uniform numbers."""
    return torch.where(draws < 0.5, -1.0, 1.0)


def oriented(side: int, draws: Tensor, images: Tensor) -> Tensor:
    """[N, 1, side, side]: the bump, lying or standing."""
    lying = bump(side).to(images)
    return torch.where(draws.view(-1, 1, 1, 1) < 0.5, lying, lying.T)


@cache
def bump(side: int) -> Tensor:
    """[side, side] of length 1: a hill above a valley, each falling off from its centre (the paper's eta, eq. 3)."""
    both = torch.cat([hill(side // 2, side), -hill(side - side // 2, side)])
    values: Tensor = both / both.norm()
    return values


def hill(height: int, width: int) -> Tensor:
    """[height, width] of length 1: at m pixels from the centre (the larger of both ways), the sum of 1 / (j + 1)^2 from
    j = m to the edge."""
    if not height:
        return torch.zeros(0, width)
    rows, columns = (torch.arange(size) - size // 2 for size in (height, width))
    away = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    falling = 1 / torch.arange(1, int(away.max()) + 2).double().square()
    values = falling.flip(0).cumsum(0).flip(0)[away]
    length: Tensor = values.norm()
    return (values / length).float()


def _at_full_length(delta: Tensor, images: Tensor, adversary: Adversary) -> Tensor:
    moved = images + adversary.threat_model.direction(delta) * adversary.epsilon
    return adversary.threat_model.project(moved, images, adversary.epsilon)


def _square(delta: Tensor) -> Tensor:
    """[N, C, 1, 1]: each channel's squared length."""
    return delta.square().sum((2, 3), keepdim=True)


def _unit(delta: Tensor) -> Tensor:
    """Each channel at length 1."""
    return delta / (_square(delta).sqrt() + _TINY)
