"""The report's figures by name: what each is called, and what to look for in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from sweep.analysis import importance, probes
from sweep.analysis.confirm import Confirmed
from sweep.analysis.probes import Probe
from sweep.analysis.report import accuracy, calibration, course, parameters, radii
from sweep.study import Study
from sweep.tracking.ledger import Ledger

_ANEW = (
    f"Attacked anew for this page, on the first {probes.IMAGES} validation images: from other random starts, and what "
    "breaks in a smaller ball is broken in all larger ones. So figures at the judged radius may differ by a few images "
    "from those of the search."
)


@dataclass(frozen=True)
class Drawn:
    """A figure of one panel or several."""

    title: str
    reading: str  # what to look for in it
    panels: list[go.Figure]
    is_wide: bool = False  # does not shrink below a readable width: the page lets it be scrolled


def gallery(
    study: Study,
    ledger: Ledger,
    found: Sequence[Confirmed],
    contenders: Mapping[int, Sequence[Probe]],
    matrix: Sequence[Probe],
    judged: float,
) -> dict[str, Drawn]:
    """Every figure that has something to show, by the name that its pictures get."""
    drawn = {
        **_of_accuracies(study, ledger, found, contenders, judged),
        **_of_networks(study, ledger, contenders),
        **_of_parameters(study, ledger, matrix, judged),
    }
    return {name: figure for name, figure in drawn.items() if figure.panels}


def _of_accuracies(
    study: Study,
    ledger: Ledger,
    found: Sequence[Confirmed],
    contenders: Mapping[int, Sequence[Probe]],
    judged: float,
) -> dict[str, Drawn]:
    return {
        "confirmed": _one(
            "The search's best and the baselines, judged again",
            "Filled: fresh seeds on unseen images, under every attack, with 95 % intervals over seeds and images. "
            "Diamonds: what the search had said. What lies between was luck, other images, or a weaker attack.",
            accuracy.confirmed(study, ledger, found),
        ),
        "clean-against-adversarial": Drawn(
            "Clean against adversarial accuracy",
            "Every trial at the epoch that counts, on the validation split. Up and to the right is better. Where some "
            "are far from the best, these are drawn again, closer.",
            accuracy.clean_against_adversarial(study, ledger, found),
        ),
        "security-curves": _one(
            "Security curves",
            "Accuracy on the validation split as the attacker's ball grows, beyond the radius that is judged, too. It "
            "must fall in the end: in a ball in which every image can become grey (0.5 in Linf), to 0; check V12 asks "
            f"that. Bands: 95 % intervals of the images. {_ANEW}",
            radii.security_curves(ledger, contenders, judged),
        ),
    }


def _of_networks(study: Study, ledger: Ledger, contenders: Mapping[int, Sequence[Probe]]) -> dict[str, Drawn]:
    return {
        "learning-curves": _one(
            "Learning curves",
            "Each defense's best trial. Star: the best epoch; circle: the last. A fall between them is robust "
            "overfitting. Below: the radius that it trained with, and the weight of the clean loss.",
            course.learning_curves(study, ledger),
        ),
        "reliability": Drawn(
            "Reliability",
            "Below the dotted line a network is surer than it is right. An attack succeeds where it makes it sure and "
            "wrong. Larger points hold more images.",
            calibration.reliability(ledger, contenders),
        ),
    }


def _of_parameters(study: Study, ledger: Ledger, matrix: Sequence[Probe], judged: float) -> dict[str, Drawn]:
    return {
        "importance": _one(
            "Importance",
            "The share of the objective's spread that a parameter explains among a defense's completed trials.",
            parameters.importance(ledger, importance.importances(study, ledger)),
        ),
        "slices": Drawn(
            "Slices",
            "The objective against each parameter. Colours are the defenses', open circles stopped trials.",
            parameters.slices(study, ledger),
        ),
        "radius-matrix": _one(
            "Radius trained with, radius attacked with",
            "Each row a trial of the search, from the least radius that its defense trained with to the greatest. "
            f"{_ANEW}",
            radii.radius_matrix(matrix, judged),
        ),
        "parallel-coordinates": _one(
            "All parameters at once",
            "The parameters that all trials share. Brighter is higher; drag along an axis to choose.",
            parameters.parallel(study, ledger),
            is_wide=True,
        ),
        "best-so-far": _one(
            "The best so far, by what it cost",
            "What each defense had reached when its own trials had cost so much. Compare at one and the same cost.",
            course.best_so_far(study, ledger),
        ),
    }


def _one(title: str, reading: str, figure: go.Figure | None, *, is_wide: bool = False) -> Drawn:
    return Drawn(title, reading, [] if figure is None else [figure], is_wide)
