"""The threat model owns the geometry: random start, step direction, projection, distance. Attacks own the loop."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor

from sweep.registry import Component, named


class ThreatModel(Component):
    """A ball around an image, intersected with the pixel box [0, 1].

    Shapes: images and gradients are [N, C, H, W]; `epsilon` and `step_size` are scalars (tensors or numbers) in pixel
    units, so that a change of their value never changes the computation's form.
    """

    kind: ClassVar[str] = "threat_model"

    epsilon: float = Field(gt=0, le=100, description="radius everyone is judged at, in [0,1] pixels: write 8 / 255")

    @abstractmethod
    def random_start(self, images: Tensor, epsilon: Tensor | float, generator: torch.Generator) -> Tensor:
        """A point drawn from the ball around each image, inside the box."""

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The direction of steepest ascent with unit length in this geometry."""

    @abstractmethod
    def project(self, points: Tensor, images: Tensor, epsilon: Tensor | float) -> Tensor:
        """The points brought back into the ball around `images` and into the box."""

    @abstractmethod
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """[N] distances between two batches of images."""


NamedThreatModel = Annotated[SerializeAsAny[ThreatModel], named("threat_model")]


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """[N] values shaped to broadcast over `like` [N, ...]."""
    return values.view(-1, *([1] * (like.dim() - 1)))
