"""Carlini and Wagner's L2 attack finds the least distortion: known exactly for a linear network."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from sweep.attacks import Adversary, misclassified
from sweep.attacks.carlini_l2 import CarliniL2
from sweep.threat_models.l2 import L2

ATTACK = CarliniL2(num_steps=150, learning_rate=0.05, binary_search_steps=7, initial_constant=0.1)
WEIGHT = torch.tensor([1.0, -2.0, 0.5, 1.5])
BIAS = -0.3


class TwoClasses(nn.Module):
    """Logits (0, w.x + b): the boundary lies |w.x + b| / |w| away."""

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ WEIGHT + BIAS
        return torch.stack([torch.zeros_like(score), score], 1)


def examples() -> tuple[Tensor, Tensor, Tensor]:
    """Images whose nearest point on the boundary is inside the box, their classes, and how far that point is."""
    images = 0.2 + 0.6 * torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    score = images.flatten(1) @ WEIGHT + BIAS
    nearest = images.flatten(1) - (score / WEIGHT.square().sum())[:, None] * WEIGHT
    kept = ((nearest > 0.02) & (nearest < 0.98)).all(1) & (score.abs() > 0.05)
    return images[kept], (score[kept] > 0).long(), (score / WEIGHT.norm())[kept].abs()


def test_distortion_is_the_distance_to_the_boundary() -> None:
    images, labels, expected = examples()
    assert len(images) > 20
    found, distance = ATTACK.minimise(TwoClasses(), images, labels)
    assert misclassified(TwoClasses(), found, labels).all()
    assert torch.allclose(L2(epsilon=1.0).distance(found, images), distance, atol=1e-6)
    assert (distance >= expected * 0.999).all()
    assert (distance <= expected * 1.03).all()


def test_within_epsilon_it_is_a_success_and_beyond_it_the_image_stays() -> None:
    images, labels, expected = examples()
    epsilon = expected.median().item()
    against = Adversary(L2(epsilon=epsilon), epsilon, torch.Generator())
    points = ATTACK.perturb(TwoClasses(), images, labels, against)
    broken = misclassified(TwoClasses(), points, labels)
    sure = (expected - epsilon).abs() > 0.03 * epsilon
    assert torch.equal(broken[sure], expected[sure] < epsilon)
    assert torch.equal(points[~broken], images[~broken])


def test_what_is_misclassified_already_is_kept_as_it_is() -> None:
    images, labels, _ = examples()
    found, distance = ATTACK.minimise(TwoClasses(), images, 1 - labels)
    assert (distance < 1e-4).all()
    assert torch.allclose(found, images, atol=1e-4)


def test_pixels_of_exactly_0_and_1_move() -> None:
    """An attack that parametrises x = (tanh w + 1) / 2 without care leaves them where they are."""
    image = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 2, 2)  # w.x + b = 1.2, and every pixel can lower it
    found, distance = ATTACK.minimise(TwoClasses(), image, torch.ones(1, dtype=torch.int64))
    change = (found - image).flatten()
    assert (change[:3] * torch.tensor([-1, 1, -1]) > 0.05).all(), "down, up, down"
    assert change[3].abs() < 0.01, "raising the last would only hurt"
    assert distance.item() == pytest.approx(1.2 / (1 + 4 + 0.25) ** 0.5, rel=0.03)


def test_settings_that_could_not_move_such_a_pixel_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"num_steps \* learning_rate must be at least 7.5, got 2"):
        CarliniL2(num_steps=200, learning_rate=0.01)


def test_nothing_found_is_an_infinite_distance() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(images), 2) + 0 * images.flatten(1)[:, :2]

    found, distance = ATTACK.minimise(Constant(), examples()[0][:3], torch.zeros(3, dtype=torch.int64))
    assert distance.isinf().all()
    assert torch.equal(found, examples()[0][:3])
