"""Sharpening by hand, and that it is granted no order: the ball lies around the image, and it is differentiated."""

from __future__ import annotations

import pytest
import torch

from sweep.defenses.laplacian_sharpening import Sharpening


@pytest.mark.parametrize(("neighbours", "centre"), [(4, 0.5 + 2 * (0.5 - 0.3)), (8, 0.5 + 2 * (0.5 - 0.25))])
def test_by_hand(neighbours: int, centre: float) -> None:
    image = torch.tensor([[0.2, 0.3, 0.2], [0.3, 0.5, 0.3], [0.2, 0.3, 0.2]]).view(1, 1, 3, 3)
    found = Sharpening(2.0, 4 if neighbours == 4 else 8)(image)
    assert found[0, 0, 1, 1].item() == pytest.approx(centre)
    if neighbours == 4:  # the corner's neighbours: itself twice, 0.3 twice
        assert found[0, 0, 0, 0].item() == pytest.approx(0.2 + 2 * (0.2 - 0.25))


def test_each_channel_by_itself_flat_areas_stay_and_edges_overshoot_within_range() -> None:
    images = torch.zeros(1, 3, 6, 6)
    images[:, 0, :, 3:] = 0.6
    images[:, 1] = 0.5
    found = Sharpening(1.0, 4)(images)
    assert torch.allclose(found[:, 1:], images[:, 1:])
    assert found[0, 0, 2].tolist() == pytest.approx([0, 0, 0, 0.75, 0.6, 0.6])  # the black side is clipped at 0


def test_its_gradient_is_that_of_what_is_not_clipped() -> None:
    images = torch.rand(1, 1, 5, 5, dtype=torch.float64).requires_grad_()
    sharpening = Sharpening(3.0, 8).double()
    (gradient,) = torch.autograd.grad(sharpening(images)[0, 0, 2, 2], images)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[1:4, 1:4] = -3 / 8
    expected[2, 2] = 1 + 3
    assert torch.allclose(gradient[0, 0], expected)
    assert torch.equal(sharpening.naive(images), images)
