"""Threat models: the promises of all of them, and the geometry of each by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sweep.registry import KINDS
from sweep.threat_models import ThreatModel
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf

ALL: list[Any] = list(KINDS["threat_model"].values())
SHAPE = (4, 2, 3, 3)
ROUNDING = 1e-6


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(seed: int) -> Tensor:
    """Pixels in [0, 1], many of them exactly 0 or 1."""
    return (3 * torch.rand(SHAPE, generator=stream(seed)) - 1).clamp(0, 1)


def inside(threat_model: ThreatModel, points: Tensor, centres: Tensor, epsilon: float) -> bool:
    near = threat_model.distance(points, centres) <= epsilon * (1 + ROUNDING) + ROUNDING
    return bool(near.all()) and bool((points >= 0).all()) and bool((points <= 1).all())


# --- what all of them promise


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), epsilon=st.floats(1e-4, 3), scale=st.floats(0, 5))
def test_starts_and_projections_lie_in_the_ball_and_in_the_box(
    kind: Any, seed: int, epsilon: float, scale: float
) -> None:
    threat_model: ThreatModel = kind(epsilon=1.0)  # of no matter here: the radius is given
    centres = images(seed)
    assert inside(threat_model, threat_model.random_start(centres, epsilon, stream(seed)), centres, epsilon)
    points = centres + scale * torch.randn(SHAPE, generator=stream(seed + 1))
    projected = threat_model.project(points, centres, epsilon)
    assert inside(threat_model, projected, centres, epsilon)
    assert torch.allclose(threat_model.project(projected, centres, epsilon), projected, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_a_point_inside_stays_where_it_is(kind: Any) -> None:
    centres = images(0)
    points = (centres + 0.01 * torch.randn(SHAPE, generator=stream(1))).clamp(0, 1)
    epsilon = float(kind(epsilon=1.0).distance(points, centres).max()) * 1.01
    assert torch.allclose(kind(epsilon=epsilon).project(points, centres, epsilon), points, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_a_radius_of_zero_allows_nothing(kind: Any) -> None:
    threat_model, centres = kind(epsilon=1.0), images(0)
    for epsilon in (0.0, torch.tensor(0.0)):
        assert torch.equal(threat_model.random_start(centres, epsilon, stream()), centres)
        assert torch.allclose(threat_model.project(centres + 0.3, centres, epsilon), centres, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e30])
def test_direction_has_unit_length_whatever_the_gradient_s_scale(kind: Any, scale: float) -> None:
    threat_model = kind(epsilon=1.0)
    gradient = torch.randn(SHAPE, generator=stream())
    direction = threat_model.direction(gradient * scale)
    assert torch.allclose(threat_model.distance(direction, torch.zeros(SHAPE)), torch.ones(len(gradient)), atol=1e-5)
    assert torch.allclose(direction, threat_model.direction(gradient), atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_no_gradient_gives_no_direction_and_disturbs_no_neighbour(kind: Any) -> None:
    threat_model = kind(epsilon=1.0)
    gradient = torch.randn(SHAPE, generator=stream())
    alone = threat_model.direction(gradient)
    gradient[1] = 0
    direction = threat_model.direction(gradient)
    assert torch.equal(direction[1], torch.zeros(SHAPE[1:]))
    assert torch.equal(direction[[0, 2, 3]], alone[[0, 2, 3]])


@pytest.mark.parametrize("kind", ALL)
def test_a_stream_gives_the_same_start_again_and_another_a_different_one(kind: Any) -> None:
    threat_model, centres = kind(epsilon=0.3), images(0)
    first = threat_model.random_start(centres, 0.3, stream(5))
    assert torch.equal(first, threat_model.random_start(centres, torch.tensor(0.3), stream(5)))
    assert not torch.equal(first, threat_model.random_start(centres, 0.3, stream(6)))


# --- each by hand


def test_linf_by_hand() -> None:
    threat_model = Linf(epsilon=0.2)
    centre = torch.tensor([0.5, 0.9, 0.0, 0.3]).view(1, 1, 2, 2)
    point = torch.tensor([0.9, 1.3, -0.4, 0.25]).view(1, 1, 2, 2)
    projected = threat_model.project(point, centre, 0.2)
    assert torch.allclose(projected.flatten(), torch.tensor([0.7, 1.0, 0.0, 0.25]))
    assert threat_model.direction(torch.tensor([-3.0, 0.0, 1e-20]).view(1, 1, 1, 3)).flatten().tolist() == [-1, 0, 1]
    assert threat_model.distance(point, centre).item() == pytest.approx(0.4)


def test_l2_by_hand() -> None:
    threat_model = L2(epsilon=1.0)
    centre, point = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0.5 + 0.3, 0.5 + 0.4]).view(1, 1, 1, 2)
    assert threat_model.distance(point, centre).item() == pytest.approx(0.5)
    projected = threat_model.project(point, centre, 0.25)  # halfway back
    assert torch.allclose(projected.flatten(), torch.tensor([0.65, 0.7]))
    assert torch.allclose(threat_model.direction(point - centre).flatten(), torch.tensor([0.6, 0.8]))


def test_linf_starts_are_uniform_in_the_cube() -> None:
    centres = torch.full((2000, 1, 2, 2), 0.5)
    offset = (Linf(epsilon=0.1).random_start(centres, 0.1, stream()) - centres) / 0.1
    assert offset.mean().item() == pytest.approx(0, abs=0.03)
    assert offset.square().mean().item() == pytest.approx(1 / 3, abs=0.02)


def test_l2_starts_are_uniform_in_the_ball() -> None:
    centres = torch.full((4000, 1, 2, 2), 0.5)
    length = L2(epsilon=0.1).distance(L2(epsilon=0.1).random_start(centres, 0.1, stream()), centres) / 0.1
    assert length.max() <= 1 + ROUNDING
    for share in (0.25, 0.5, 0.75):  # in 4 dimensions the ball of radius r holds r^4 of the volume
        assert (length <= share**0.25).double().mean().item() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("kind", ALL)
def test_epsilon_must_be_a_positive_number(kind: Any) -> None:
    for wrong in (0, -0.1, "8/255", float("nan")):
        with pytest.raises(ValueError, match="epsilon"):
            kind(epsilon=wrong)


def test_a_linf_radius_of_pixels_up_to_255_is_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Linf(epsilon=8)
    assert L2(epsilon=8).epsilon == 8
