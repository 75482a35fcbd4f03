"""Random noise: as likely to succeed as the share of the ball that is misclassified, known in one dimension."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sweep.attacks import Adversary, Attack
from sweep.attacks.random_noise import RandomNoise
from sweep.threat_models import ThreatModel
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf

COUNT = 2_000
IMAGES = torch.full((COUNT, 1, 1, 1), 0.5)
ZERO = torch.zeros(COUNT, dtype=torch.int64)
BALLS: list[ThreatModel] = [Linf(epsilon=0.1), L2(epsilon=0.1)]


class Beyond(nn.Module):
    """One pixel: class 1 above `limit`, with a logit that grows with the pixel. Counts its forward passes."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        pixel = images.flatten(1)
        return torch.cat([torch.zeros_like(pixel), pixel - self.limit], 1)


def perturbed(attack: Attack, network: nn.Module, ball: ThreatModel, until_broken: bool) -> Tensor:
    against = Adversary(ball, ball.epsilon, torch.Generator().manual_seed(0))
    return attack.perturb(network, IMAGES, ZERO, against, until_broken=until_broken).flatten()


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
@pytest.mark.parametrize("draws", [1, 5])
def test_it_succeeds_as_often_as_chance_says(ball: ThreatModel, draws: int) -> None:
    """A tenth of the ball lies beyond: all of n draws miss it with probability 0.9^n."""
    network = Beyond(limit=0.58)
    points = perturbed(RandomNoise(num_draws=draws), network, ball, until_broken=True)
    expected = 1 - 0.9**draws
    assert (points > 0.58).double().mean().item() == pytest.approx(
        expected, abs=4 * (expected * (1 - expected) / COUNT) ** 0.5
    )
    assert ((points - 0.5).abs() <= 0.1 + 1e-6).all()


@pytest.mark.parametrize("ball", BALLS, ids=lambda ball: ball.name)
def test_it_keeps_the_worst_draw_and_until_broken_the_first(ball: ThreatModel) -> None:
    attack = RandomNoise(num_draws=8)
    worst = perturbed(attack, Beyond(limit=0.58), ball, until_broken=False)
    first = perturbed(attack, Beyond(limit=0.58), ball, until_broken=True)
    assert (worst >= first).all()
    assert (worst > first).any(), "some break twice"
    assert torch.equal(worst > 0.58, first > 0.58)
    # the largest of 8 numbers that are uniform in (0.4, 0.6) is 0.4 + 0.2 * 8 / 9 on average
    assert worst.mean().item() == pytest.approx(0.4 + 0.2 * 8 / 9, abs=0.003)


def test_what_withstands_is_asked_once_a_draw_and_what_breaks_no_more() -> None:
    never, at_once = Beyond(limit=0.9), Beyond(limit=0.1)
    perturbed(RandomNoise(num_draws=7), never, Linf(epsilon=0.1), until_broken=True)
    assert never.asked == 7 * COUNT
    perturbed(RandomNoise(num_draws=7), at_once, Linf(epsilon=0.1), until_broken=True)
    assert at_once.asked == COUNT
