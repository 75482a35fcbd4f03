"""Asynchronous successive halving, the promoting kind: Algorithm 2 of Li et al. (2018).

A trial is trained for a rung's epochs, all of its schedules, which are functions of progress, compressed to them. Once
it is among the best of its rung it is promoted: its configuration is trained again, from scratch, as a trial of its
own, for the next rung's epochs. What is not whole ends as stopped, so that only whole trainings can be the best.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweep.orchestration.early_stopping import Promotion, Rungs
from sweep.tracking.ledger import Ledger, TrialRecord


@dataclass
class Promotions(Rungs):
    """The values that trainings of each rung's length came to, and who of them is next. The ledger knows who was."""

    ledger: Ledger = field(default_factory=Ledger)
    # Who may yet be promoted, by group and level, the best last. Those who were are left out when they are come upon.
    _waiting: dict[tuple[str, int], list[tuple[float, int]]] = field(default_factory=dict)

    def proposed(self, config: dict[str, Any]) -> dict[str, Any]:
        """A new configuration begins at the first rung."""
        epochs: int = config["epochs"]
        return {"config": config | {"epochs": self.rule.ladder(epochs)[0]}, "whole": epochs}

    def verdict(self, trial: TrialRecord, epoch: int, metrics: Mapping[str, float]) -> tuple[str, dict[str, float]]:
        """A trial trains its schedule to the end. It stops there where that is not its whole training."""
        if epoch < trial.config["epochs"] or self.goal.metric not in metrics:
            return "continue", {}
        best = max(map(self.value, [*trial.reports.values(), metrics]))
        return ("continue" if trial.is_whole else "stop"), {str(epoch): best}

    def record(self, trial: int, recorded: Mapping[str, float]) -> None:
        """Take in what `verdict` gave."""
        super().record(trial, recorded)
        if not self.ledger.trials[trial].is_whole:
            for level, value in recorded.items():
                insort(self._waiting.setdefault((self.rivals(trial), int(level)), []), (value, -trial))

    def forget(self, trial: int) -> None:
        """Take a suspect trial's values out again, and those of its shorter trainings, which nobody had checked."""
        for number in self.ledger.lineage(trial):
            super().forget(number)

    def promotion(self, branch: str | None) -> Promotion | None:
        """The best one not yet promoted, at the highest rung where it is among the best 1 / reduction_factor."""
        for level in sorted(self.values, reverse=True):
            group = branch or "", level
            waiting = self._waiting.get(group, [])
            while waiting and -waiting[-1][1] in self.ledger.promoted:
                waiting.pop()
            if waiting and self._is_among_the_best(group, waiting[-1]):
                trial = self.ledger.trials[-waiting[-1][1]]
                assert trial.whole is not None
                return Promotion(trial, next(step for step in self.rule.ladder(trial.whole) if step > level))
        return None

    def _is_among_the_best(self, group: tuple[str, int], one: tuple[float, int]) -> bool:
        everyone = self._ordered[group]
        return len(everyone) - bisect_left(everyone, one) <= len(everyone) // self.rule.reduction_factor
