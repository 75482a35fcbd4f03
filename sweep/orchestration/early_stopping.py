"""Asynchronous successive halving, the stopping kind: monotone, finite-only, rebuilt from the journal.

At each rung a trial's best value so far is compared with those that came before it. The bounds of the objective are not
looked at here: early in training most robust networks still violate them.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from sweep.objective import Goal
from sweep.provisions import Asha
from sweep.tracking.ledger import TrialRecord


def _everyone(trial: int) -> str:
    return ""


@dataclass
class Rungs:
    """The values that reached each rung, by level and trial. Greater is better.

    `rivals` names the group within which a trial is ranked: everyone, or its own defense where these are compared.
    """

    rule: Asha
    goal: Goal
    rivals: Callable[[int], str] = _everyone
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    # The same by group and by size: long studies have long rungs.
    _ordered: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def levels(self) -> Iterator[int]:
        """The rungs, without end."""
        return (self.rule.grace_period * self.rule.reduction_factor**k for k in itertools.count())

    def reached(self, trial: int, resource: float) -> list[int]:
        """The rungs at or below `resource` at which this trial has not been judged yet."""
        passed = itertools.takewhile(lambda level: level <= resource, self.levels())
        return [level for level in passed if trial not in self.values.get(level, {})]

    def verdict(self, trial: TrialRecord, epoch: int, metrics: Mapping[str, float]) -> tuple[str, dict[str, float]]:
        """What to do with a trial that reports this epoch, ``continue`` or ``stop``, and what to record of it."""
        if self.goal.metric not in metrics:
            return "continue", {}
        resource = {"epochs": epoch, **metrics}[self.rule.resource]
        if not self.reached(trial.number, resource):
            return "continue", {}
        best = max(map(self.value, [*trial.reports.values(), metrics]))
        goes_on, recorded = self.judge(trial.number, resource, best)
        # Trained to the end, it counts for those that follow.
        return ("continue" if goes_on or epoch >= trial.config["epochs"] else "stop"), recorded

    def judge(self, trial: int, resource: float, best: float) -> tuple[bool, dict[str, float]]:
        """Whether a trial with `best` so far, for so much `resource`, goes on; and what to record: rung to value.

        Nothing is recorded yet: a verdict counts once it is in the journal. The first `reduction_factor - 1` trials at
        a rung always go on: there is too little to compare them with.
        """
        reached = self.reached(trial, resource)
        return all(self._goes_on(trial, level, best) for level in reached), {str(level): best for level in reached}

    def record(self, trial: int, recorded: Mapping[str, float]) -> None:
        """Take in what `judge` gave."""
        for level, value in recorded.items():
            values = self.values.setdefault(int(level), {})
            if trial not in values:
                values[trial] = value
                insort(self._ordered.setdefault((self.rivals(trial), int(level)), []), value)

    def forget(self, trial: int) -> None:
        """Take a trial's values out again: a suspect trial's accuracy shall not stop those that are honest."""
        for level, values in self.values.items():
            if trial in values:
                self._ordered[self.rivals(trial), level].remove(values.pop(trial))

    def value(self, metrics: Mapping[str, float]) -> float:
        """The objective, greater being better; minus infinity where it is missing or not finite."""
        value = metrics.get(self.goal.metric, math.nan)
        if not math.isfinite(value):
            return -math.inf
        return value if self.goal.direction == "maximize" else -value

    def populations(self) -> dict[int, int]:
        """How many trials reached each rung."""
        return {level: len(values) for level, values in sorted(self.values.items())}

    def _goes_on(self, trial: int, level: int, value: float) -> bool:
        """Whether `value` would be among the best of the trial's rivals at the rung, were it there."""
        others = self._ordered.get((self.rivals(trial), level), [])
        places, better = (len(others) + 1) // self.rule.reduction_factor, len(others) - bisect_right(others, value)
        return not places or better < places
