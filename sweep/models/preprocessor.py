"""What a defense does to images before a network sees them. It is a part of the network, and is attacked with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

Pixels = Callable[[Tensor], Tensor]  # rows [N] of a split -> its images [N, C, H, W] in [0, 1]


class Preprocessor(nn.Module):
    """Images [N, C, H, W] in [0, 1] -> images of the same shape; with its own weights, if it has any.

    Gradients flow through `forward`, and pass straight through what has none (BPDA with the identity, Athalye et al.
    2018, section 4.1). What is random draws from torch's global stream, which `Network` seeds; in evaluation mode one
    draw serves a whole batch, so that what happens to an example does not depend on its neighbours.
    """

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...

    def naive(self, images: Tensor) -> Tensor:
        """What an attack that is not adapted to the defense differentiates: by default it does not know that there is
        any preprocessing; for what has no gradient, the preprocessing with the derivative that it has, zero."""
        return images

    def prepare(self, pixels: Pixels, size: int, seed: int) -> int:
        """Train what is trained before the network, on `size` clean training images: the gradient evaluations spent."""
        return 0


class Chain(Preprocessor):
    """One preprocessor behind another; the second is prepared on what the first gives."""

    def __init__(self, first: Preprocessor, second: Preprocessor) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, images: Tensor) -> Tensor:
        seen: Tensor = self.second(self.first(images))
        return seen

    def naive(self, images: Tensor) -> Tensor:
        return self.second.naive(self.first.naive(images))

    def prepare(self, pixels: Pixels, size: int, seed: int) -> int:
        spent = self.first.prepare(pixels, size, seed)
        return spent + self.second.prepare(lambda rows: self.first(pixels(rows)), size, seed)


def straight_through(exact: Tensor, images: Tensor) -> Tensor:
    """The exact values, with the gradient of `images`."""
    return images + (exact - images).detach()
