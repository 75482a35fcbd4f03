from __future__ import annotations

import pytest
import torch
from torch import nn

from sweep.models.resnet18 import BasicBlock, Projection, ResNet18


def test_parameter_count_of_the_cifar_resnet18() -> None:
    core = ResNet18().build(3, (32, 32), 10)
    assert sum(parameter.numel() for parameter in core.parameters()) == 11_173_962


def test_one_channel_saves_the_stems_two_others() -> None:
    core = ResNet18().build(1, (28, 28), 10)
    assert sum(parameter.numel() for parameter in core.parameters()) == 11_173_962 - 2 * 9 * 64


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (8, 8), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    assert ResNet18(width=4).build(3, size, 7)(torch.rand(2, 3, *size)).shape == (2, 7)


def test_stages_halve_three_times_and_the_stem_does_not() -> None:
    core = ResNet18(width=4).build(3, (32, 32), 10)
    shapes: list[tuple[int, ...]] = []
    for module in core.modules():
        if isinstance(module, BasicBlock):
            module.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    core(torch.rand(1, 3, 32, 32))
    assert shapes == [(4, 32, 32)] * 2 + [(8, 16, 16)] * 2 + [(16, 8, 8)] * 2 + [(32, 4, 4)] * 2


def test_block_without_its_residual_is_the_activated_shortcut() -> None:
    block = BasicBlock(4, 4, 1, "relu")
    last = block.residual[-1]
    assert isinstance(last, nn.BatchNorm2d)
    nn.init.zeros_(last.weight)
    features = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(features), features.relu())


def test_activation_is_the_named_one() -> None:
    core = ResNet18(width=4, activation="silu").build(3, (32, 32), 10)
    assert sum(isinstance(module, nn.SiLU) for module in core.modules()) == 1 + 8 * 2
    assert not any(isinstance(module, nn.ReLU) for module in core.modules())


def test_a_projection_is_the_strided_convolution() -> None:
    projection = Projection(5, 10, 2)
    images = torch.rand(3, 5, 7, 6)
    expected = torch.nn.functional.conv2d(images, projection.weight, stride=2)
    torch.testing.assert_close(projection(images), expected)
