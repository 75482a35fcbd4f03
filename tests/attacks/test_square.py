"""Square: its schedule, its windows and its budget by hand; in both balls on networks whose worst point is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sweep.attacks import Adversary, margin, misclassified
from sweep.attacks.square import Square
from sweep.attacks.windows import L2Windows, LinfWindows, bump
from sweep.threat_models import ThreatModel
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf

WEIGHT = torch.randn(16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
GREY = torch.full((5, 1, 4, 4), 0.5, dtype=torch.float64)
ZERO = torch.zeros(5, dtype=torch.int64)
UPPER_LEFT, LOWER_RIGHT = (0.0, 0.0), (0.999, 0.999)


class Linear(nn.Module):
    """Logits (bias, w.x): how far the second is raised in a ball around grey is known. Counts its forward passes."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        score = (images - 0.5).flatten(1) @ WEIGHT
        return torch.stack([torch.full_like(score, self.bias), score], 1)


def adversary(threat_model: ThreatModel) -> Adversary:
    return Adversary(threat_model, threat_model.epsilon, torch.Generator().manual_seed(0))


def proposal(
    windows: LinfWindows | L2Windows, best: Tensor, images: Tensor, ball: ThreatModel, area: float, *draws: float
) -> Tensor:
    return windows.propose(best, images, adversary(ball), area, torch.tensor([draws] * len(images)))


# --- the schedule and the budget


@pytest.mark.parametrize(
    ("queries", "query", "area"),
    [
        (10_000, 0, 0.8),
        (10_000, 10, 0.8),
        (10_000, 11, 0.4),
        (10_000, 51, 0.2),
        (10_000, 201, 0.1),
        (10_000, 4_001, 0.8 / 128),
        (10_000, 8_001, 0.8 / 512),
        (5_000, 5, 0.8),
        (5_000, 6, 0.4),
        (100, 1, 0.2),  # 100 of 10,000
    ],
)
def test_the_area_is_halved_at_the_paper_s_places_whatever_the_budget(queries: int, query: int, area: float) -> None:
    assert Square(num_queries=queries).area(query) == pytest.approx(area, rel=1e-12)


@pytest.mark.parametrize("ball", [Linf(epsilon=0.1), L2(epsilon=0.5)])
@pytest.mark.parametrize("until_broken", [True, False])
def test_what_withstands_is_asked_exactly_so_often(ball: ThreatModel, until_broken: bool) -> None:
    network = Linear(bias=100.0)
    Square(num_queries=37).perturb(network, GREY, ZERO, adversary(ball), until_broken=until_broken)
    assert network.asked == (37 + until_broken) * len(GREY), "a look at the image itself is no query"


def test_what_breaks_at_the_first_look_is_asked_once() -> None:
    network = Linear(bias=-100.0)
    Square().perturb(network, GREY, ZERO, adversary(Linf(epsilon=0.1)), until_broken=True)
    assert network.asked == len(GREY)


# --- Linf


def test_linf_starts_with_stripes_at_the_ends_of_the_interval() -> None:
    images = torch.rand(6, 3, 5, 7, generator=torch.Generator().manual_seed(1))
    shift = LinfWindows().start(0.2 + 0.6 * images, adversary(Linf(epsilon=0.1))) - (0.2 + 0.6 * images)
    assert torch.allclose(shift.abs(), torch.tensor(0.1))
    assert torch.equal(shift.sign(), shift[:, :, :1].sign().expand_as(shift)), "one sign a column"
    assert 0.3 < (shift[:, :, 0] > 0).float().mean() < 0.7


def test_linf_fills_a_square_with_one_sign_a_channel_and_leaves_the_rest() -> None:
    images = torch.full((1, 2, 4, 4), 0.5)
    for (row, column), top, left in [(UPPER_LEFT, 0, 0), (LOWER_RIGHT, 2, 2), ((0.4, 0.999), 1, 2)]:
        tried = proposal(LinfWindows(), images, images, Linf(epsilon=0.1), 4.2, row, column, 0, 0, 0, 0.3, 0.7)
        expected = images.clone()
        expected[:, 0, top : top + 2, left : left + 2] = 0.4
        expected[:, 1, top : top + 2, left : left + 2] = 0.6
        assert torch.allclose(tried, expected)


def test_linf_stops_at_the_box_and_at_the_whole_image() -> None:
    images = torch.tensor([0.0, 0.05, 0.95, 1.0]).view(1, 1, 2, 2)
    tried = proposal(LinfWindows(), images, images, Linf(epsilon=0.1), 100.0, 0.9, 0.9, 0, 0, 0, 0.9)
    assert torch.allclose(tried.flatten(), torch.tensor([0.1, 0.15, 1.0, 1.0]))


# --- L2


def test_the_bump_of_three_pixels_by_hand() -> None:
    upper = torch.tensor([[0.25, 1.25, 0.25]])
    lower = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
    expected = torch.cat([upper / upper.norm(), -lower / lower.norm()]) / 2**0.5
    assert torch.allclose(bump(3), expected)


@pytest.mark.parametrize("side", [1, 2, 5, 6, 11])
def test_a_bump_has_length_one_and_its_top_where_the_paper_puts_it(side: int) -> None:
    values = bump(side)
    assert values.norm().item() == pytest.approx(1, abs=1e-6)
    if side > 1:
        assert values[: side // 2].min() > 0 > values[side // 2 :].max()
        assert divmod(int(values.argmax()), side) == (side // 2 // 2, side // 2)


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 8, 8), (2, 3, 6)])
def test_l2_starts_at_the_full_length_all_over_the_image(shape: tuple[int, int, int]) -> None:
    images = torch.full((4, *shape), 0.5)
    ball = L2(epsilon=0.3)
    delta = L2Windows().start(images, adversary(ball)) - images
    assert torch.allclose(delta.flatten(1).norm(dim=1), torch.tensor(0.3), atol=1e-5)
    assert (delta != 0).float().mean() > 0.75


@pytest.mark.parametrize("places", [(*UPPER_LEFT, *LOWER_RIGHT), (*UPPER_LEFT, 0.3, 0.3), (*LOWER_RIGHT, *LOWER_RIGHT)])
def test_l2_moves_one_window_s_length_into_another(places: tuple[float, ...]) -> None:
    images = torch.full((2, 2, 6, 6), 0.5, dtype=torch.float64)
    ball = L2(epsilon=0.3)
    best = L2Windows().start(images, adversary(ball))
    before = best - images
    after = proposal(L2Windows(), best, images, ball, 9.0, *places, 0.2, 0.1, 0.9) - images
    corners = [math.floor(place * 4) for place in places]
    touched, filled = torch.zeros(6, 6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)
    for top, left in (corners[:2], corners[2:]):
        touched[top : top + 3, left : left + 3] = True
    filled[corners[0] : corners[0] + 3, corners[1] : corners[1] + 3] = True
    assert torch.allclose(after[:, :, ~touched], before[:, :, ~touched], atol=1e-6), "elsewhere nothing changes"
    assert (after[:, :, touched & ~filled] == 0).all(), "the second window is emptied"
    length, kept = (delta[:, :, touched].norm(dim=2) for delta in (before, after))
    assert torch.allclose(length, kept, atol=1e-6), "each channel keeps its length"
    old = before[:, :, filled] / before[:, :, filled].norm(dim=2, keepdim=True)
    new = bump(3).flatten() * torch.tensor([-1.0, 1.0])[:, None]
    direction = (old + new) / (old + new).norm(dim=2, keepdim=True)
    found = after[:, :, filled] / after[:, :, filled].norm(dim=2, keepdim=True)
    assert torch.allclose(found, direction, atol=1e-5), "the old window's direction plus the new bump's"


def test_l2_spends_what_the_box_took_away() -> None:
    images = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64)
    best = images.clone()
    best[0, 0, 5, 5] = 0.6  # of a radius of 0.5
    after = proposal(L2Windows(), best, images, L2(epsilon=0.5), 9.0, *UPPER_LEFT, *UPPER_LEFT, 0.2, 0.9) - images
    assert after[0, 0, 5, 5].item() == pytest.approx(0.1)
    assert torch.allclose(after[0, 0, :3, :3], 0.24**0.5 * bump(3).double(), atol=1e-6)


# --- the search


def test_in_linf_it_reaches_the_worst_corner_of_a_linear_network() -> None:
    points = Square(num_queries=800).perturb(Linear(bias=100.0), GREY, ZERO, adversary(Linf(epsilon=0.1)))
    assert torch.allclose(points, (0.5 + 0.1 * WEIGHT.sign()).view(1, 1, 4, 4).expand_as(points))


def test_in_l2_it_comes_near_the_worst_point_of_a_linear_network() -> None:
    """As near as windows of three pixels come on four: a random direction would reach a quarter of the way."""
    points = Square(num_queries=400).perturb(Linear(bias=100.0), GREY, ZERO, adversary(L2(epsilon=0.3)))
    raised = (points - 0.5).flatten(1) @ WEIGHT
    assert (raised > 0.65 * 0.3 * WEIGHT.norm()).all()


def test_until_broken_keeps_the_first_success_and_the_verdict_is_the_same() -> None:
    images = 0.2 + 0.6 * torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    zeros, attack, ball = torch.zeros(40, dtype=torch.int64), Square(num_queries=60), Linf(epsilon=0.05)
    network = Linear(bias=0.3)
    images, zeros = images[~misclassified(network, images, zeros)], zeros[~misclassified(network, images, zeros)]
    to_the_end = attack.perturb(network, images, zeros, adversary(ball))
    stopped = attack.perturb(network, images, zeros, adversary(ball), until_broken=True)
    broken = misclassified(network, stopped, zeros)
    assert 0 < broken.sum() < len(images)
    assert torch.equal(broken, misclassified(network, to_the_end, zeros))
    assert torch.equal(stopped[~broken], to_the_end[~broken])
    further = margin(network(to_the_end), zeros) - margin(network(stopped), zeros)
    assert (further >= 0).all()
    assert (further[broken] > 0).any()


def test_another_objective_replaces_the_margin() -> None:
    attack, against = Square(num_queries=800), adversary(Linf(epsilon=0.1))
    points = attack.perturb(Linear(bias=100.0), GREY, ZERO, against, objective=lambda logits, _: -logits[:, 1])
    assert torch.allclose(points, (0.5 - 0.1 * WEIGHT.sign()).view(1, 1, 4, 4).expand_as(points))
