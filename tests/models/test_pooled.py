"""A convolution and its pool as one layer give what the two give, whichever way they are computed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sweep.models.pooled import PooledConvolution

SHAPES = [  # channels, maps, kernel, padding, height, width; regrouped?
    ((1, 6, 5, 2, 28, 28), True),
    ((6, 16, 5, 0, 14, 12), True),
    ((2, 3, 7, 2, 16, 16), True),
    ((2, 3, 7, 1, 10, 12), False),
    ((3, 4, 5, 1, 12, 10), False),
    ((1, 4, 3, 1, 8, 8), False),
    ((1, 4, 5, 2, 9, 8), False),
    ((9, 4, 5, 2, 8, 8), False),
]


def two_layers(layer: PooledConvolution, images: Tensor) -> Tensor:
    return F.max_pool2d(F.conv2d(images, layer.weight, layer.bias, padding=layer.padding), 2)


@pytest.mark.parametrize(("shape", "is_regrouped"), SHAPES)
def test_it_gives_what_the_two_layers_give(shape: tuple[int, ...], is_regrouped: bool) -> None:
    channels, maps, kernel, padding, height, width = shape
    torch.manual_seed(0)
    layer = PooledConvolution(channels, maps, kernel, padding).double()
    images = torch.rand(5, channels, height, width, dtype=torch.float64, requires_grad=True)
    found, expected = layer(images), two_layers(layer, images)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13 if is_regrouped else 0)
    wanted = (images, *layer.parameters())
    weights = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, wanted, weights), torch.autograd.grad(expected, wanted, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_which_shapes_are_regrouped() -> None:
    """LeNet-5's first two layers are; what has a full vector of channels, or would multiply mostly by zeros, is not."""
    for (channels, maps, kernel, padding, height, width), is_regrouped in SHAPES:
        layer = PooledConvolution(channels, maps, kernel, padding)
        with torch.profiler.profile() as profile:
            layer(torch.rand(1, channels, height, width))
        assert any(event.key == "aten::index_select" for event in profile.key_averages()) == is_regrouped


def test_double_backpropagation_goes_through_it() -> None:
    """Gradient regularization differentiates the input's gradient by the weights."""
    layer = PooledConvolution(1, 3, 5, 2).double()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)

    def penalty(outputs: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(outputs.square().sum(), images, create_graph=True)
        return gradient.square().sum()

    (found,) = torch.autograd.grad(penalty(layer(images)), layer.weight)
    (expected,) = torch.autograd.grad(penalty(two_layers(layer, images)), layer.weight)
    torch.testing.assert_close(found, expected)


def test_its_parameters_are_a_convolutions() -> None:
    """Weights that were published or exported load, in both directions; so does what it begins with, from one seed."""
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(1, 6, 5, padding=2)
    torch.manual_seed(0)
    layer = PooledConvolution(1, 6, 5, 2)
    assert {name: value.tolist() for name, value in layer.state_dict().items()} == {
        name: value.tolist() for name, value in plain.state_dict().items()
    }
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(copy.deepcopy(layer)(images), layer(images))
