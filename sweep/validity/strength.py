"""Checks of the judge: other ways of attacking the same network must not find much more than it did."""

from __future__ import annotations

import itertools
import math

from sweep.attacks import Attack
from sweep.attacks.pgd import PGD
from sweep.validity.base import check
from sweep.validity.subject import FGSM_ONCE, Subject, is_single_step, judge_of, share

_ITERATIVE = PGD(num_steps=10)
_RESTARTS = 10
_FACTORS = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
_CAREFULLY = "Judge with more steps, restarts and losses (apgd_ce and apgd_t), and believe the lowest figure."


def other_kind(judge: Attack) -> Attack:
    """A single-step attack for an iterative judge, an iterative one for a single-step judge."""
    return _ITERATIVE if is_single_step(judge) else FGSM_ONCE


def doubled(judge: Attack) -> Attack | None:
    """The judge with twice its steps, which together reach across the ball; None where it takes a single step."""
    steps = getattr(judge, "num_steps", None)
    if steps is None:
        return None
    changes = {"num_steps": 2 * steps, "step_size": None, "relative_step_size": 2.5}
    return judge.model_copy(update={name: value for name, value in changes.items() if name in type(judge).model_fields})


def restarted(judge: Attack) -> Attack | None:
    if "num_restarts" not in type(judge).model_fields:
        return None
    return judge.model_copy(update={"num_restarts": _RESTARTS})


def other_loss(judge: Attack) -> Attack:
    """PGD on the margin; on the cross entropy where the judge itself raises the margin."""
    steps = max(getattr(judge, "num_steps", 10), 2)
    return PGD(num_steps=steps, loss="cross_entropy" if getattr(judge, "loss", "") == "margin" else "margin")


@check(
    "V8",
    "iterative at least as strong",
    figure="of the images: accuracy under the judge above that under FGSM (a single-step judge: under PGD-10)",
    reason="Many steps can do what one step does; where they do less, the gradient leads them astray.",
    remedy=f"{_CAREFULLY} A single-step figure is no figure: judge with PGD.",
    source="Carlini et al. 2019, section 4.1",
    passes=lambda judge: other_kind(judge).gradient_evaluations,
    investigate=0.03,
    suspect=0.1,
)
def iterative(subject: Subject) -> float:
    return subject.lost(other_kind(subject.judge))


@check(
    "V9",
    "convergence",
    figure="of the images: what the judge loses with twice the steps, the steps scaled to the ball",
    reason="An attack that has not converged, or whose steps cannot cross the ball, measures its own weakness.",
    remedy="Take more steps, of 2.5 * epsilon / num_steps each.",
    source="Carlini et al. 2019, section 4.3; indicator of failure F3 (Pintor et al. 2022)",
    passes=lambda judge: attack.gradient_evaluations if (attack := doubled(judge)) else 0,
    arises=lambda config: doubled(judge_of(config)) is not None,
    investigate=0.03,
    suspect=0.1,
)
def convergence(subject: Subject) -> float:
    longer = doubled(subject.judge)
    assert longer is not None
    return subject.lost(longer)


@check(
    "V10",
    "restarts",
    figure=f"of the images withstand the judge, and not the judge with {_RESTARTS} restarts",
    reason="Where another random start finds what the first did not, the surface is rugged.",
    remedy="Judge with more restarts.",
    source="Carlini et al. 2019, section 4.5",
    passes=lambda judge: attack.gradient_evaluations if (attack := restarted(judge)) else 0,
    arises=lambda config: restarted(judge_of(config)) is not None,
    level="full",
    investigate=0.03,
    suspect=0.1,
)
def restarts(subject: Subject) -> float:
    more = restarted(subject.judge)
    assert more is not None
    return subject.broken_only_by(more)


@check(
    "V11",
    "monotone in epsilon",
    figure="of the images: largest rise of the accuracy from one radius to a larger one",
    reason="A larger ball holds the smaller one; where it helps the network, the attack failed.",
    remedy=_CAREFULLY,
    source="Carlini et al. 2019, section 4.2",
    passes=lambda judge: (len(_FACTORS) - 1) * judge.gradient_evaluations,
    level="full",
    investigate=0.03,
    suspect=0.1,
)
def monotone(subject: Subject) -> float:
    accuracies = [share(subject.held(subject.judge, factor)) for factor in _FACTORS]
    return max(larger - smaller for smaller, larger in itertools.pairwise(accuracies))


@check(
    "V12",
    "unbounded attack",
    figure="of the images withstand the judge in a ball in which every image can become grey",
    reason="Nobody can tell a grey image's class, so an attack that may go there and does not succeed is broken.",
    remedy="Look at the gradient (V4, V5) and at the judge's steps.",
    source="Carlini et al. 2019, section 4.2; indicator of failure F5 (Pintor et al. 2022)",
    passes=lambda judge: judge.gradient_evaluations,
    investigate=0.1,
    suspect=0.3,
)
def unbounded(subject: Subject) -> float:
    threat_model = subject.config.threat_model
    dimensions = subject.split.images[0].numel()
    grey = 0.5 if threat_model.name == "linf" else 0.5 * math.sqrt(dimensions)
    return share(subject.held(subject.judge, max(grey / threat_model.epsilon, 1.0)))


@check(
    "V16",
    "diverse losses",
    figure="of the images withstand the judge, and not the same steps up another loss",
    reason="Huge logits saturate the cross entropy, and its gradient vanishes or rounds to noise.",
    remedy="Judge with a margin loss (cw_pgd, apgd_t), which no scale of the logits changes.",
    source="Carlini et al. 2019, section 4.4; Croce & Hein 2020, section 4",
    passes=lambda judge: other_loss(judge).gradient_evaluations,
    investigate=0.03,
    suspect=0.2,
)
def losses(subject: Subject) -> float:
    return subject.broken_only_by(other_loss(subject.judge))
