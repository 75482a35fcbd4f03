"""Transfer: points made on one network and judged on another, by hand on linear ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweep.attacks.pgd import PGD
from sweep.datasets import Split
from sweep.evaluation import BATCH, evaluate, predict
from sweep.models.network import Network
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf
from sweep.transfer import transfer

ATTACK = PGD(num_steps=3, random_start="none")


class Slope(nn.Module):
    """Two classes of two pixels: logits (0, w . (x - 0.5))."""

    def __init__(self, *weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, images: Tensor) -> Tensor:
        score = (images.flatten(1) - 0.5) @ self.weight
        return torch.stack([torch.zeros_like(score), score], 1)


def network(*weight: float) -> Network:
    return Network(Slope(*weight), [0.0], [1.0])


def split(*pixels: tuple[int, int], labels: list[int]) -> Split:
    return Split(torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 1, 2), torch.tensor(labels))


def test_points_of_a_like_source_break_what_lies_within_epsilon_and_those_of_an_unlike_one_do_not() -> None:
    """The target looks at the first pixel, and so does one source; the other looks at the second."""
    near, far, wrong = (115, 128), (90, 128), (150, 128)  # 0.05 and 0.15 below the boundary, and beyond it
    sources = {"like": network(5.0, 0.0), "unlike": network(0.0, 5.0)}
    images = split(near, far, wrong, labels=[0, 0, 0])
    verdicts = transfer(network(1.0, 0.0), sources, images, ATTACK, Linf(epsilon=0.1), seed=0)
    assert verdicts.clean.tolist() == [True, True, False]
    assert verdicts.robust["transfer_like_pgd_3_image_start"].tolist() == [False, True, False]
    assert verdicts.robust["transfer_unlike_pgd_3_image_start"].tolist() == [True, True, False]
    assert verdicts.worst_case.tolist() == [False, True, False]
    assert "validation/transfer_like_pgd_3_image_start/adversarial_accuracy" in verdicts.metrics("validation")


def test_the_attack_goes_on_where_the_source_errs_already() -> None:
    """The source is wrong of the image as it is; half of the radius would not break the target."""
    source = Network(Slope(1.0, 0.0), [-0.2], [1.0])  # sees every pixel 0.2 brighter
    images = split((110, 128), labels=[0])
    assert predict(source, images).argmax(1).tolist() == [1]
    verdicts = transfer(network(1.0, 0.0), {"other": source}, images, ATTACK, Linf(epsilon=0.1), seed=0)
    assert verdicts.robust["transfer_other_pgd_3_image_start"].tolist() == [False]


@pytest.mark.parametrize("ball", [Linf(epsilon=0.1), L2(epsilon=0.12)], ids=lambda ball: ball.name)
def test_from_the_target_itself_it_is_the_white_box_attack(ball: Any) -> None:
    pixels = torch.randint(0, 256, (BATCH + 60, 1, 1, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Split(pixels, torch.zeros(len(pixels), dtype=torch.int64))
    target = network(1.0, -0.5)
    white = evaluate(target, images, [ATTACK], ball, seed=0).robust[ATTACK.label]
    black = transfer(target, {"itself": target}, images, ATTACK, ball, seed=0)
    assert torch.equal(black.robust["transfer_itself_pgd_3_image_start"], white)
    assert 0 < white.sum() < black.clean.sum()


def test_gradients_are_counted_at_the_source_and_both_networks_are_left_as_they_were() -> None:
    target, source = network(1.0, 0.0).train(), network(5.0, 0.0).train()
    images = split((115, 128), (150, 128), labels=[0, 0])
    transfer(target, {"a": source}, images, ATTACK, Linf(epsilon=0.1), seed=0)
    assert (target.gradient_evaluations, source.gradient_evaluations) == (0, 3), "three steps of the one that is right"
    assert target.training and source.training
    assert all(weight.requires_grad and weight.grad is None for weight in (*target.parameters(), *source.parameters()))


def test_random_starts_are_given_by_seed_and_source() -> None:
    images = split(*[(115 + value % 13, 128) for value in range(60)], labels=[0] * 60)
    attack = PGD(num_steps=1, relative_step_size=0.01)  # hardly more than its start
    sources = {"a": network(1.0, 0.0), "b": network(1.0, 0.0)}

    def verdicts(seed: int) -> dict[str, Tensor]:
        return transfer(network(1.0, 0.0), sources, images, attack, Linf(epsilon=0.1), seed).robust

    first, again, other = verdicts(0), verdicts(0), verdicts(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[f"transfer_a_{attack.label}"], other[f"transfer_a_{attack.label}"])
    assert not torch.equal(first[f"transfer_a_{attack.label}"], first[f"transfer_b_{attack.label}"])
