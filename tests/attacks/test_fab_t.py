"""FAB: its projection against brute force, its distances where the boundary is known, its verdicts at a radius."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from sweep.attacks import Adversary, misclassified
from sweep.attacks.fab_t import FABT
from sweep.attacks.plane import onto_plane
from sweep.models.network import Network
from sweep.models.small_cnn import SmallCNN
from sweep.seeding import layer_randomness
from sweep.threat_models import ThreatModel
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf

BALLS: list[ThreatModel] = [Linf(epsilon=0.1), L2(epsilon=0.1)]
WEIGHT = torch.tensor([[1.0, -2.0, 0.5, 1.5], [0.0, 0.0, 0.0, 0.0], [-1.0, 0.5, 2.0, -0.5]], dtype=torch.float64)
BIAS = torch.tensor([-0.3, 0.1, -0.4], dtype=torch.float64)


class Linear(nn.Module):
    """Three classes of four pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.gradients = 0

    def forward(self, images: Tensor) -> Tensor:
        self.gradients += len(images) if images.requires_grad else 0
        return images.flatten(1) @ WEIGHT.T + BIAS


def batch(count: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return images, Linear()(images).argmax(1)


def to_plane(image: Tensor, normal: Tensor, height: float, ball: ThreatModel) -> float:
    """The distance to a plane within the box, by a general solver; infinite where the box does not reach it."""
    reach = torch.where(normal * -height > 0, 1 - image, -image)
    if abs(height) > abs((normal * reach).sum().item()):
        return torch.inf
    size = len(image)
    bounds: list[Any] = [(-pixel, 1 - pixel) for pixel in image.tolist()]
    on_plane = {"type": "eq", "fun": lambda d: float(d[:size] @ normal.numpy()) + height}
    if ball.name == "l2":
        found = minimize(lambda d: d @ d, torch.zeros(size), bounds=bounds, constraints=[on_plane], tol=1e-12)
        return math.sqrt(found.fun)
    inside = [{"type": "ineq", "fun": lambda d, k=k, s=s: d[size] - s * d[k]} for k in range(size) for s in (-1, 1)]
    start, bounds = torch.zeros(size + 1), [*bounds, (0, 1)]
    found = minimize(lambda d: d[size], start, bounds=bounds, constraints=[on_plane, *inside], tol=1e-12)
    return float(found.fun)


# --- the projection


def test_the_projection_by_hand() -> None:
    """3 a - 4 b + 0 c is 1 too high at (0.1, 0.5, 0.3)."""
    point = torch.tensor([0.1, 0.5, 0.3], dtype=torch.float64).view(1, 1, 1, 3)
    normal, one = torch.tensor([3.0, -4.0, 0.0], dtype=torch.float64).view(1, 1, 1, 3), torch.ones(1).double()
    # Linf: the first pixel meets 0 after 0.1, when 0.7 is lost; the second goes on for 0.3 / 4
    assert onto_plane(point, normal, one, Linf(epsilon=1.0)).flatten().tolist() == pytest.approx([0, 0.675, 0.3])
    # L2: unhindered it would be (-0.12, +0.16); the first stops at -0.1 and 0.3 lost, the second loses 0.7
    assert onto_plane(point, normal, one, L2(epsilon=1.0)).flatten().tolist() == pytest.approx([0, 0.675, 0.3])
    # half as high it is unhindered: 0.5 / 7 each, and 0.5 (3, 4) / 25
    linf, l2 = (onto_plane(point, normal, one / 2, ball(epsilon=1.0)).flatten().tolist() for ball in (Linf, L2))
    assert linf == pytest.approx([0.1 - 1 / 14, 0.5 + 1 / 14, 0.3])
    assert l2 == pytest.approx([0.04, 0.58, 0.3])


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_the_projection_is_the_nearest_point_of_the_plane_in_the_box(ball: ThreatModel) -> None:
    stream = torch.Generator().manual_seed(1)
    points = (1.4 * torch.rand(40, 1, 1, 6, generator=stream, dtype=torch.float64) - 0.2).clamp(0, 1)
    normal = torch.randn(40, 1, 1, 6, generator=stream, dtype=torch.float64)
    normal[::3, :, :, :2] = 0
    height = 2 * torch.randn(40, generator=stream, dtype=torch.float64)
    found = onto_plane(points, normal, height, ball)
    assert ((found >= 0) & (found <= 1)).all()
    remaining = height + (normal * (found - points)).flatten(1).sum(1)
    distance = ball.distance(found, points)
    reached = 0
    for index in range(40):
        least = to_plane(points[index].flatten(), normal[index].flatten(), height[index].item(), ball)
        if least < torch.inf:
            reached += 1
            assert remaining[index].item() == pytest.approx(0, abs=1e-9)
            assert distance[index].item() == pytest.approx(least, abs=1e-5)
        else:
            edge = torch.where(normal[index] * height[index] > 0, 0.0, 1.0).double()
            assert torch.allclose(found[index], torch.where(normal[index] == 0, points[index], edge))
    assert 15 < reached < 40


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_without_a_gradient_or_on_the_plane_nothing_moves(ball: ThreatModel) -> None:
    points = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64).view(1, 1, 1, 3)
    normal = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64).view(1, 1, 1, 3)
    assert torch.equal(onto_plane(points, 0 * normal, torch.ones(1).double(), ball), points)
    assert torch.equal(onto_plane(points, normal, torch.zeros(1).double(), ball), points)


# --- the attack


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_it_finds_the_distance_to_the_nearest_boundary_of_a_linear_network(ball: ThreatModel) -> None:
    """Far from the box: the least over the other classes of how far they are behind, by the dual norm of the slope."""
    images, labels = batch(40)
    images = 0.45 + 0.1 * images
    labels = Linear()(images).argmax(1)
    search = FABT(num_steps=20).minimise(Linear(), images, labels, ball)
    assert misclassified(Linear(), search.nearest, labels).all()
    assert torch.equal(ball.distance(search.nearest, images), search.distance)
    logits = Linear()(images)
    slope = (WEIGHT - WEIGHT[labels][:, None]).norm(p=1 if ball.name == "linf" else 2, dim=2)
    behind = logits.gather(1, labels[:, None]) - logits
    least = torch.where(slope > 0, behind / slope, torch.inf).amin(1)
    assert torch.allclose(search.distance, least, atol=1e-4)
    assert (search.distance >= least).all()


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_it_comes_near_the_nearest_boundary_where_the_box_is_in_the_way(ball: ThreatModel) -> None:
    images, labels = batch(30)
    distance = FABT(num_steps=20).minimise(Linear(), images, labels, ball).distance
    logits = Linear()(images)
    for index, label in enumerate(labels.tolist()):
        image, others = images[index].flatten(), [other for other in range(3) if other != label]
        ways = [(WEIGHT[other] - WEIGHT[label], logits[index, other] - logits[index, label]) for other in others]
        least = min(to_plane(image, normal, height.item(), ball) for normal, height in ways)
        assert distance[index].item() == pytest.approx(least, abs=1e-3)


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_it_comes_nearer_than_thousands_of_random_ways_on_a_network_with_bends(ball: ThreatModel) -> None:
    with layer_randomness(1, "test"):
        network = Network(SmallCNN(width=4).build(1, (6, 6), 4), [0.5], [0.05]).double().eval()
    images = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = network(images).detach().argmax(1)
    distance = FABT(num_steps=30).minimise(network, images, labels, ball).distance
    stream = torch.Generator().manual_seed(3)
    for image, label, length in zip(images, labels, distance, strict=True):
        centres = image.expand(3_000, 1, 6, 6)
        points = ball.random_start(centres, 0.98 * length, stream)
        assert not misclassified(network, points, label.expand(3_000)).any()


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
@pytest.mark.parametrize("until_broken", [True, False])
def test_within_epsilon_it_is_a_success_and_beyond_it_the_image_stays(ball: ThreatModel, until_broken: bool) -> None:
    images, labels = batch(40)
    distance = FABT(num_steps=20).minimise(Linear(), images, labels, ball).distance
    epsilon = distance.median().item()
    against = Adversary(ball, epsilon, torch.Generator())
    points = FABT(num_steps=20).perturb(Linear(), images, labels, against, until_broken=until_broken)
    broken = misclassified(Linear(), points, labels)
    assert torch.equal(broken, distance <= epsilon)
    assert torch.equal(points[~broken], images[~broken])


def test_until_broken_stops_at_the_first_point_within_epsilon() -> None:
    images, labels = batch(40)
    network, everything = Linear(), Adversary(Linf(epsilon=1.0), 1.0, torch.Generator())
    points = FABT(num_targets=1, num_steps=10).perturb(network, images, labels, everything, until_broken=True)
    assert misclassified(network, points, labels).all()
    assert network.gradients == len(images), "a linear network falls to the first projection"


def test_with_fewer_classes_there_are_fewer_targets() -> None:
    images, labels = batch(7)
    network, against = Linear(), Adversary(Linf(epsilon=0.1), 0.1, torch.Generator())
    FABT(num_steps=5).perturb(network, images, labels, against)
    assert network.gradients == 2 * 5 * len(images)


def test_what_is_misclassified_already_is_kept_as_it_is_at_no_cost() -> None:
    images, labels = batch(7)
    network = Linear()
    search = FABT().minimise(network, images, (labels + 1) % 3, Linf(epsilon=0.1))
    assert torch.equal(search.nearest, images)
    assert (search.distance == 0).all()
    assert network.gradients == 0
