"""When a study has had what it was given: no further trial begins."""

from __future__ import annotations

import json

from sweep.study import Study
from sweep.tracking.ledger import Ledger


def is_spent(study: Study, ledger: Ledger) -> bool:
    """Whether a limit of the study's budget is reached, or its grid is tried out."""
    budget = study.budget
    limits = [len(ledger.trials) >= budget.trials]
    if study.sampler == "grid":
        points = {json.dumps(trial.params, sort_keys=True) for trial in ledger}
        limits.append(len(points) >= study.space.size)
    if budget.gradient_evaluations is not None:
        limits.append(ledger.gradient_evaluations >= budget.gradient_evaluations)
    if budget.hours is not None:
        limits.append(ledger.hours >= budget.hours)
    return any(limits)
