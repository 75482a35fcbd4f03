"""A convolution and the 2x2 maximum behind it in one layer, arranged so that a CPU has full vectors to compute with."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FEW_CHANNELS = 8  # fewer do not fill a vector register of 256 bits
_MOST_EXTRA = 1.5  # times the multiplications


class PooledConvolution(nn.Conv2d):
    """`nn.Conv2d` of stride 1, then 2x2 max pooling: parameters, their names and values as of those two layers.

    With one to seven input channels a CPU's convolution runs nearly empty: the gradient of MNIST images behind
    LeNet-5's first layer takes as long as all layers above it. There each 2x2 block of pixels becomes one position of
    four times the channels ("space to depth"), and one convolution gives the four outputs of a pooling window side by
    side. It multiplies by a few zeros more (44 % at 5x5), gives the same values to rounding, and made a whole training
    step of LeNet-5 1.25 times as fast (AMD EPYC, AVX2; `benchmarks/training_step.py`). Elsewhere the two layers run as
    they are: on a GPU, with more channels, small kernels or odd sides, and in a compiled or exported graph.
    """

    def __init__(self, channels: int, maps: int, kernel: int, padding: int) -> None:
        super().__init__(channels, maps, kernel, padding=padding)
        self._first = -padding // 2  # the first and the last block that an output block sees, from its own
        self._blocks = (kernel - padding) // 2 - self._first + 1
        self._gains = channels < _FEW_CHANNELS and kernel % 2 == 1 and (2 * self._blocks / kernel) ** 2 <= _MOST_EXTRA

    def forward(self, images: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, maps, (H + 2 padding - kernel + 1) // 2, likewise W]."""
        height, width = images.shape[2:]
        is_plain = images.device.type != "cpu" or torch.compiler.is_compiling()
        if is_plain or not self._gains or height % 2 or width % 2:
            return F.max_pool2d(super().forward(images), 2)
        assert self.bias is not None
        outputs = F.conv2d(_in_blocks(images), self._regrouped(), self.bias.repeat(4), padding=-self._first)
        count, _, rows, columns = outputs.shape
        windows = outputs.permute(0, 2, 3, 1).reshape(count, rows * columns, 4, self.out_channels)
        highest = F.max_pool2d(windows.permute(0, 3, 1, 2), (1, 4))  # its first maximum is a 2x2 window's first
        return highest.view(count, self.out_channels, rows, columns)

    def _regrouped(self) -> Tensor:
        """[maps, channels, k, k] -> [4 maps, 4 channels, blocks, blocks]: a window's four outputs see the same blocks,
        each its own part of them."""
        side, first = 2 * self._blocks, int(self.padding[0]) + 2 * self._first
        before, after = 1 - first, side - self.kernel_size[0] + first
        padded = F.pad(self.weight, (before, after, before, after))
        shifted = padded.unfold(2, side, 1).unfold(3, side, 1).flip(2, 3)  # the output's place in its window, 2 x 2
        maps, channels, blocks = self.out_channels, self.in_channels, self._blocks
        parts = shifted.reshape(maps, channels, 2, 2, blocks, 2, blocks, 2).permute(2, 3, 0, 5, 7, 1, 4, 6)
        weight = parts.reshape(4 * maps, 4 * channels, blocks, blocks)
        return weight.contiguous(memory_format=torch.channels_last)


def _in_blocks(images: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 4 C, H / 2, W / 2] in channels_last; channels run by place in the block, then by map."""
    count, channels, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(count, -1)
    blocks = pixels.index_select(1, _places(channels, height, width))  # a permutation, but five times as fast
    return blocks.view(count, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)


@lru_cache
def _places(channels: int, height: int, width: int) -> Tensor:
    pixels = torch.arange(channels * height * width).view(height // 2, 2, width // 2, 2, channels)
    return pixels.permute(0, 2, 1, 3, 4).flatten()
