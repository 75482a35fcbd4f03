"""Whether an adversarial accuracy can be believed: the checks, and the verdict on a trial.

A sweep finds every weakness of a weak attack. So each trial that completes is asked the checks of the study's level on
some of its validation images; one failed check makes it suspect, and a suspect trial wins nothing.
"""

from __future__ import annotations

from sweep.configuration import TrialConfig
from sweep.models.network import crafting
from sweep.seeding import layer_randomness
from sweep.validity import account, blackbox, learning, networks, preprocessing, strength  # noqa: F401  # register
from sweep.validity.base import CHECKS, Check, Level, Outcome, Validity, asked
from sweep.validity.subject import IMAGES, Known, Subject, judge_of

__all__ = ["CHECKS", "IMAGES", "Check", "Known", "Level", "Outcome", "Subject", "Validity", "asked", "cost", "examine"]


def examine(subject: Subject) -> Validity:
    """Ask a trained network every check of its configuration's level."""
    spent = subject.network.gradient_evaluations
    # A random layer draws from torch's global stream, which is given back as it was.
    with layer_randomness(subject.config.seed, "validity"), crafting(subject.network, "eval"):
        measured = {check.id: check.measure(subject) for check in asked(subject.config)}
    figures = {id: figure for id, figure in measured.items() if figure is not None}
    outcomes = {id: CHECKS[id].outcome(figure) for id, figure in figures.items()}
    return Validity(
        level=subject.config.validity,
        images=len(subject.split),
        gradient_evaluations=subject.network.gradient_evaluations - spent,
        figures=figures,
        suspect=tuple(id for id, outcome in outcomes.items() if outcome == "suspect"),
        investigate=tuple(id for id, outcome in outcomes.items() if outcome == "investigate"),
    )


def cost(config: TrialConfig, validation: int) -> float:
    """Gradient evaluations of a trial's checks, at most, with so many validation images."""
    images = min(IMAGES[config.validity], validation) * max(config.defense.test_draws, 1)
    return images * sum(check.passes(judge_of(config)) for check in asked(config))
