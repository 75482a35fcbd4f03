"""Checks against attacks that need no gradient: whoever knows the network must not do worse than whoever does not."""

from __future__ import annotations

from sweep.attacks.random_noise import RandomNoise
from sweep.attacks.square import Square
from sweep.validity.base import check
from sweep.validity.subject import Subject

_GRADIENTS = "The judge's gradients lead nowhere: see V4, V16 and V19, and judge with auto_attack."


@check(
    "V13",
    "white box at least black box",
    figure="of the images withstand the judge, and not Square",
    reason="Random search without gradients finds what the judge with gradients does not.",
    remedy=_GRADIENTS,
    source="AutoAttack, check_square_sr (Croce & Hein 2020); Carlini et al. 2019, section 4.4",
    investigate=0.03,
    suspect=0.1,
)
def black_box(subject: Subject) -> float:
    return subject.broken_only_by(Square(num_queries=_queries(subject, 100, 1000)))


@check(
    "V15",
    "random noise",
    figure="of the images withstand the judge, and not random points of the ball",
    reason="Blind draws find what the judge does not.",
    remedy=_GRADIENTS,
    source="Carlini et al. 2019, section 5.2",
    investigate=0.01,
    suspect=0.05,
)
def noise(subject: Subject) -> float:
    return subject.broken_only_by(RandomNoise(num_draws=_queries(subject, 20, 500)))


def _queries(subject: Subject, fast: int, full: int) -> int:
    """A quarter as many where each answer is the mean over a random network's draws."""
    queries = fast if subject.config.validity == "fast" else full
    return queries // 4 if subject.network.draws else queries
