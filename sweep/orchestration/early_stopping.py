"""Asynchronous successive halving, the stopping kind: monotone, finite-only, rebuilt from the journal.

The promoting kind is in promotion.py.

At each rung a trial's best value so far is compared with those that came before it. The bounds of the objective are not
looked at here: early in training most robust networks still violate them.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from sweep.objective import Goal
from sweep.provisions import Asha
from sweep.tracking.ledger import TrialRecord


def everyone(trial: int) -> str:
    """The one group in which all trials are rivals."""
    return ""


@dataclass(frozen=True)
class Promotion:
    """A trial that is to be trained again, from scratch, with all of its schedules over so many epochs."""

    trial: TrialRecord
    epochs: int

    @property
    def asked(self) -> dict[str, Any]:
        """The fields of that training's first event: those of its configuration's proposal, but for the epochs."""
        one = self.trial
        shared = {"params": one.params, "origin": one.origin, "attributes": one.attributes, "whole": one.whole}
        return {"config": one.config | {"epochs": self.epochs}, **shared, "promoted_from": one.number}


@dataclass
class Rungs:
    """The values that reached each rung, by level and trial. Greater is better.

    `rivals` names the group within which a trial is ranked: everyone, or its own defense where these are compared.
    """

    rule: Asha
    goal: Goal
    rivals: Callable[[int], str] = everyone
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    # The same by group and by size, of equals the earlier trial last: long studies have long rungs.
    _ordered: dict[tuple[str, int], list[tuple[float, int]]] = field(default_factory=dict)

    def proposed(self, config: dict[str, Any]) -> dict[str, Any]:
        """What the first event of a trial says of its configuration."""
        return {"config": config}

    def promotion(self, branch: str | None) -> Promotion | None:
        """Who of the branch is to be trained again with a longer schedule: here nobody, who is good is trained on."""
        return None

    def reached(self, trial: int, resource: float) -> list[int]:
        """The rungs at or below `resource` at which this trial has not been judged yet."""
        passed = takewhile(lambda level: level <= resource, self.rule.levels())
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
                insort(self._ordered.setdefault((self.rivals(trial), int(level)), []), (value, -trial))

    def forget(self, trial: int) -> None:
        """Take a trial's values out again: a suspect trial's accuracy shall not stop those that are honest."""
        for level, values in self.values.items():
            if trial in values:
                self._ordered[self.rivals(trial), level].remove((values.pop(trial), -trial))

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
        better = len(others) - bisect_right(others, (value, math.inf))
        places = (len(others) + 1) // self.rule.reduction_factor
        return not places or better < places
