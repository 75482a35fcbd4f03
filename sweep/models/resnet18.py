from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from sweep.models.activations import ActivationName, activation
from sweep.models.base import Model
from sweep.registry import register

_BLOCKS_PER_STAGE = 2


@register("resnet18")
class ResNet18(Model):
    """ResNet-18 (He et al. 2016) as it is built for CIFAR: a 3x3 stem with stride 1 and no max pooling.

    Four stages of two basic blocks with `width`, 2, 4 and 8 times `width` maps, batch norm, global average pooling:
    11,173,962 parameters for ten classes and colour at width 64. Initialised as torch's layers are by default.
    """

    width: int = Field(default=64, ge=1, le=512, description="maps of the stem and the first stage")
    activation: ActivationName = Field(default="relu", description="after every batch norm and every block's sum")

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        stages: list[nn.Module] = []
        maps = self.width
        for stage in range(4):
            for block in range(_BLOCKS_PER_STAGE):
                before, stride = maps, 2 if stage > 0 and block == 0 else 1
                maps = self.width * 2**stage
                stages.append(BasicBlock(before, maps, stride, self.activation))
        stem = [_convolution(channels, self.width, 3), nn.BatchNorm2d(self.width), activation(self.activation)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, classes)]
        return nn.Sequential(*stem, *stages, *head)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, maps: int, stride: int, activation_name: ActivationName) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _convolution(before, maps, 3, stride),
            nn.BatchNorm2d(maps),
            activation(activation_name),
            _convolution(maps, maps, 3),
            nn.BatchNorm2d(maps),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or before != maps:
            self.shortcut = nn.Sequential(Projection(before, maps, stride), nn.BatchNorm2d(maps))
        self.activation = activation(activation_name)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.activation(self.residual(features) + self.shortcut(features))
        return result


class Projection(nn.Conv2d):
    """A 1x1 convolution with a stride, as one without a stride of the pixels that it looks at.

    The sums are the same. With fewer than 8 maps in channels_last, torch 2.13's oneDNN writes outside of its memory on
    a CPU without AVX-512 when it takes such a convolution's gradient: the process dies, or goes on with other numbers.
    """

    def __init__(self, before: int, maps: int, every: int) -> None:
        super().__init__(before, maps, 1, bias=False)
        self.every = every

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features[:, :, :: self.every, :: self.every])


def _convolution(before: int, maps: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, maps, kernel, stride=stride, padding=kernel // 2, bias=False)
