from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from sweep.models.activations import ActivationName, activation

NAMES: tuple[ActivationName, ...] = get_args(ActivationName)


@pytest.mark.parametrize(
    ("name", "at_one"),
    [
        ("relu", 1.0),
        ("silu", 1 / (1 + math.exp(-1))),
        ("gelu", (1 + math.erf(1 / math.sqrt(2))) / 2),
        ("softplus", math.log(1 + math.exp(10)) / 10),
        ("tanh", math.tanh(1)),
    ],
)
def test_value_at_one(name: ActivationName, at_one: float) -> None:
    assert activation(name)(torch.ones(1, dtype=torch.float64)).item() == pytest.approx(at_one, abs=1e-9)


@pytest.mark.parametrize(("name", "largest"), [("softplus", 2.5), ("gelu", 0.798), ("tanh", 0.770), ("silu", 0.5)])
def test_largest_second_derivative_is_as_documented(name: ActivationName, largest: float) -> None:
    points = torch.linspace(-3, 3, 6001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation(name)(points).sum(), points, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), points)
    assert curvature.abs().max().item() == pytest.approx(largest, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_input_is_not_overwritten(name: ActivationName) -> None:
    points = torch.linspace(-2, 2, 9)
    before = points.clone()
    activation(name)(points)
    assert torch.equal(points, before)
