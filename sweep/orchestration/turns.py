"""Whose turn it is: where a study compares its defenses, each gets the same gradient evaluations to be tuned with.

The next trial is one of the defense that has spent least, so that what they have spent is never further apart than one
trial costs, whichever limit of the budget ends the study. A trial that runs counts with what it will have cost at its
end: as many trials at once are as fair as one after another. All of it is worked out from the journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweep.orchestration.early_stopping import Rungs, everyone
from sweep.orchestration.promotion import Promotions
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord


@dataclass(frozen=True)
class Turn:
    """The trial that begins next."""

    branch: str | None  # the defense that it is of; None: nothing is compared, and the sampler chooses
    place: int  # how many configurations came before it: of its defense, or of the study


def next_turn(study: Study, ledger: Ledger) -> Turn:
    """The defense that has spent least is next; of equals, the one with fewer trials, then the study's first."""
    if not study.compare:
        return Turn(None, len(ledger.trials) - len(ledger.promoted))
    spent = accounts(study, ledger)
    asked = Counter(trial.defense for trial in ledger if trial.promoted_from is None)
    branch = min(spent, key=lambda name: (spent[name], asked[name]))
    return Turn(branch, asked[branch])


def accounts(study: Study, ledger: Ledger) -> dict[str, float]:
    """What each defense is charged, in gradient evaluations.

    A running trial is charged what it will have cost at its end. So is a failed one: a defense that fails at once would
    have every turn otherwise. A diverged or timed out one also pays for the epoch that it did not report.
    """
    dearest = _dearest_epochs(ledger)
    charged = dict.fromkeys(study.space.alternatives("defense"), 0.0)
    for trial in ledger:
        charged[trial.defense] += _charge(trial, dearest)
    return charged


def enqueued(study: Study, turn: Turn) -> Mapping[str, Any] | None:
    """The partial configuration that the study enqueued for this trial, if it did."""
    given = [one for one in study.enqueue if turn.branch in (None, study.space.constrain(one)[0].get("defense"))]
    return given[turn.place] if turn.place < len(given) else None


def rungs_for(study: Study, ledger: Ledger) -> Rungs | None:
    """The study's early stopping; where defenses are compared, a trial is ranked among those of its own."""
    if study.early_stopping is None:
        return None
    rivals = (lambda number: ledger.trials[number].defense) if study.compare else everyone
    if study.early_stopping.kind == "promotion":
        return Promotions(study.early_stopping, study.objective[0], rivals, ledger=ledger)
    return Rungs(study.early_stopping, study.objective[0], rivals)


def _charge(trial: TrialRecord, dearest: Mapping[str, float]) -> float:
    unpaid: int = trial.config["epochs"] - trial.epoch
    if trial.end not in (None, "failed"):
        unpaid = min(unpaid, 1) if trial.end in ("diverged", "timed_out") else 0
    an_epoch = trial.gradient_evaluations / trial.epoch if trial.reports else dearest.get(trial.defense)
    if an_epoch is None:  # nobody knows yet what this defense costs
        an_epoch = max(dearest.values(), default=0.0)
    return trial.gradient_evaluations + unpaid * an_epoch


def _dearest_epochs(ledger: Ledger) -> dict[str, float]:
    """By defense, what an epoch of its costliest trial cost, as far as any was reported."""
    dearest: dict[str, float] = {}
    for trial in ledger:
        if trial.reports:
            an_epoch = trial.gradient_evaluations / trial.epoch
            dearest[trial.defense] = max(an_epoch, dearest.get(trial.defense, 0.0))
    return dearest
