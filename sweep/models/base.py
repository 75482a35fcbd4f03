"""A model names an architecture; what it builds is attacked and trained inside `sweep.models.network.Network`."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Annotated, ClassVar

from pydantic import SerializeAsAny
from torch import nn

from sweep.errors import ConfigurationError
from sweep.models.activations import ActivationName, activation
from sweep.models.pooled import PooledConvolution
from sweep.registry import Component, named


class Model(Component):
    """An architecture and its sizes."""

    kind: ClassVar[str] = "model"

    @abstractmethod
    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        """A new network from normalised images [N, channels, *size] to logits [N, classes].

        Parameters are drawn from torch's global stream, which the caller seeds (`sweep.seeding.layer_randomness`).
        Raises ConfigurationError for images too small for the architecture.
        """


NamedModel = Annotated[SerializeAsAny[Model], named("model")]


@dataclass(frozen=True)
class Convolution:
    """A convolution with an activation; if `pool`, of stride 1 and with 2x2 max pooling too."""

    maps: int
    kernel: int
    padding: int
    stride: int = 1
    pool: bool = False

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in size)
        return (height // 2, width // 2) if self.pool else (height, width)


def convolutional_network(
    convolutions: Sequence[Convolution],
    hidden: Sequence[int],
    activation_name: ActivationName,
    image: tuple[int, tuple[int, int]],
    classes: int,
) -> nn.Sequential:
    """Convolutions, then hidden linear layers, then the logits, for images of (channels, (height, width)).

    Layers are named conv1, conv2, ..., linear1, linear2, ...; the last linear layer is the output.
    """
    channels, size = image
    _refuse_too_small(convolutions, size)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, convolution in enumerate(convolutions, 1):
        maps, kernel, padding = convolution.maps, convolution.kernel, convolution.padding
        # ReLU gives the same bits on either side of the pool, and behind it has a quarter of the work.
        pools_first = convolution.pool and activation_name == "relu"
        layers[f"conv{number}"] = (
            PooledConvolution(channels, maps, kernel, padding)
            if pools_first
            else nn.Conv2d(channels, maps, kernel, stride=convolution.stride, padding=padding)
        )
        layers[f"conv{number}_activation"] = activation(activation_name)
        if convolution.pool and not pools_first:
            layers[f"conv{number}_pool"] = nn.MaxPool2d(2)
        channels, size = convolution.maps, convolution.output_size(size)
    features = channels * size[0] * size[1]
    layers["flatten"] = nn.Flatten()
    for number, width in enumerate(hidden, 1):
        layers[f"linear{number}"] = nn.Linear(features, width)
        layers[f"linear{number}_activation"] = activation(activation_name)
        features = width
    layers[f"linear{len(hidden) + 1}"] = nn.Linear(features, classes)
    return nn.Sequential(layers)


def _refuse_too_small(convolutions: Sequence[Convolution], size: tuple[int, int]) -> None:
    if _fits(convolutions, size):
        return
    smallest = next(side for side in count(1) if _fits(convolutions, (side, side)))
    problem = f"images of {size[0]}x{size[1]} pixels are too small for its layers, which need {smallest}x{smallest}"
    raise ConfigurationError("model", [f"{problem}; choose another model or variant"])


def _fits(convolutions: Sequence[Convolution], size: tuple[int, int]) -> bool:
    for convolution in convolutions:
        size = convolution.output_size(size)
    return min(size) >= 1
