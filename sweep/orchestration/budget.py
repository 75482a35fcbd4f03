"""When a study has had what it was given: no further trial begins."""

from __future__ import annotations

import json

from sweep.orchestration.turns import accounts
from sweep.study import Study
from sweep.tracking.ledger import Ledger


class Spending:
    """What a study's trials, as the ledger has them, take from its budget. Asked ten times a second, so that each
    trial's point of a grid is looked at once."""

    def __init__(self, study: Study, ledger: Ledger) -> None:
        self._study, self._ledger = study, ledger
        self._grid = study.space.size if study.sampler == "grid" else None
        self._points: set[str] = set()
        self._counted = 0  # trials whose points these are

    @property
    def is_over(self) -> bool:
        """Whether a limit of the budget is reached, or the grid is tried out."""
        budget, ledger = self._study.budget, self._ledger
        limits = [len(ledger.trials) >= budget.trials]
        if self._grid is not None:
            limits.append(self._tried() >= self._grid)
        if budget.gradient_evaluations is not None:
            limits.append(self._least_spent() >= budget.gradient_evaluations)
        if budget.hours is not None:
            limits.append(ledger.hours >= budget.hours)
        return any(limits)

    def _least_spent(self) -> float:
        """Gradient evaluations of all trials; where defenses are compared, as if all had spent what the least did."""
        if not self._study.compare:
            return self._ledger.gradient_evaluations
        spent = accounts(self._study, self._ledger).values()
        return min(spent) * len(spent)

    def _tried(self) -> int:
        """How many points of the grid have a trial."""
        trials = self._ledger.trials  # numbered from zero on, and each keeps its point
        self._points |= {json.dumps(trials[n].params, sort_keys=True) for n in range(self._counted, len(trials))}
        self._counted = len(trials)
        return len(self._points)
