"""Optuna's study as the sampler keeps it: rebuilt at each start, written without waiting, asked at a flat cost.

Optuna's own file backend takes a lock and waits for the disk at each of a trial's writes (6 ms a trial), which is worth
nothing here: the journal is the truth and `optuna.log` its picture, for optuna-dashboard. And TPE looks at every trial
at each proposal, which at ten thousand trials is a tenth of a second and more.
"""

from __future__ import annotations

import json
from bisect import insort
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import BaseJournalBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from sweep.objective import Rank
from sweep.study import Study

LATEST = 150  # finished trials, the last ones asked, that a model is made from beside the best ones
BEST = 50  # of each goal; TPE's good ones are 25 at most


class Log(BaseJournalBackend):
    """A file that one process writes anew, in the format of Optuna's `JournalFileBackend`, and never reads."""

    def __init__(self, path: Path) -> None:
        for old in (path, *path.parent.glob(f"{path.name}.lock*")):  # a dashboard would wait for a dead one's lock
            old.unlink(missing_ok=True)
        self._path = path
        self._written: list[dict[str, Any]] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._path.open("ab", buffering=0) as file:
            file.write(lines.encode())  # one write: others read whole lines
        self._written += logs

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """What was appended since the last reading: the storage that writes is the only one that reads."""
        written, self._written = self._written, []
        return written


@dataclass
class _Memory:
    """Which trials a model is made from, by number."""

    most: int  # of the latest
    best: list[list[tuple[Rank, int]]]  # for each goal
    latest: list[int] = field(default_factory=list)
    running: set[int] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)  # by a longer training of the same configuration
    told: dict[int, FrozenTrial] = field(default_factory=dict)  # of these, those that have ended

    def ended(self, number: int, ranks: Sequence[Rank]) -> None:
        insort(self.latest, number)  # in whatever order they ended: a resumed study is to show the same
        del self.latest[: -self.most]
        for best, rank in zip(self.best, ranks, strict=True):
            insort(best, (rank, -number))
            del best[:-BEST]

    def shown(self) -> list[int]:
        known = self.running.union(self.latest, *([-number for _, number in best] for best in self.best))
        return sorted(known - self.replaced)


class _Told(FrozenTrial):
    """A trial that has ended. Of any other, Optuna picks the constraints from its attributes whenever it looks at them:
    hundreds of times for each group of parameters that it models, a third of a proposal."""

    @cached_property
    def constraints(self) -> dict[str, float]:
        return super().constraints


class OptunaStudy(optuna.Study):
    """A study that shows a sampler, within `thinned`, the running, the latest and the best trials only."""

    def __init__(self, study: Study, log: Log, distributions: Mapping[str, BaseDistribution]) -> None:
        storage, goals = JournalStorage(log), study.objective
        storage.create_new_study([optuna.study.StudyDirection[goal.direction.upper()] for goal in goals], study.name)
        super().__init__(study.name, storage)
        self._distributions = distributions
        self._shown: list[FrozenTrial] | None = None
        self._waiting: int | None = None  # the trial that was enqueued last, until it is asked for
        most = max(LATEST, study.startup_trials)  # of which samplers want to see so many
        self._memories = defaultdict[str | None, _Memory](lambda: _Memory(most, [[] for _ in goals]))

    def enqueue(self, number: int, params: Mapping[str, Any]) -> None:
        """Have `ask`, which must follow, propose trial `number` with these parameters."""
        self.enqueue_trial(dict(params))
        self._waiting = number

    def remember(
        self, number: int, ranks: Sequence[Rank] | None, branch: str | None = None, shorter: int | None = None
    ) -> None:
        """Trial `number` runs (`ranks` is None), or ended with this rank for each goal.

        `branch` is its defense where each is to have a sampler of its own; `shorter` the trial that it was promoted
        from: a model is made from each configuration's longest training, and so learns of it once.
        """
        memory = self._memories[branch]
        if ranks is None:
            memory.running.add(number)
            return
        memory.running.discard(number)
        # The storage holds every trial's own copy of every distribution: 4 KB a trial.
        trial = self._trial(number)
        trial.distributions = {name: self._distributions[name] for name in trial.distributions}
        if trial.state == TrialState.FAIL:  # no model is made from it
            return
        memory.ended(number, ranks)
        if shorter is not None:
            memory.replaced.add(shorter)

    @contextmanager
    def thinned(self, is_thinned: bool, branch: str | None = None) -> Iterator[None]:
        """Meanwhile show no other trials than those that a model (of this branch) is made from, if `is_thinned`."""
        self._shown = self._of(self._memories[branch]) if is_thinned else None
        try:
            yield
        finally:
            self._shown = None

    @contextmanager
    def one_of_a_kind(self) -> Iterator[None]:
        """Within `thinned`, of the ended trials with the same parameters show only the first: as good as all of them
        where it is asked which parameters are met together."""
        shown = self._shown
        if shown is not None:
            kinds = {frozenset(trial.distributions): trial for trial in reversed(shown) if isinstance(trial, _Told)}
            self._shown = sorted(kinds.values(), key=lambda trial: trial.number)
        try:
            yield
        finally:
            self._shown = shown

    def _of(self, memory: _Memory) -> list[FrozenTrial]:
        shown = memory.shown()
        memory.told = {
            number: memory.told.get(number) or _told(self._trial(number))
            for number in shown
            if number not in memory.running
        }
        return [memory.told.get(number) or self._trial(number) for number in shown]

    def _pop_waiting_trial_id(self) -> int | None:
        """Optuna looks for one that waits among all trials, at each proposal."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._storage.set_trial_state_values(waiting, TrialState.RUNNING)
        return waiting

    def _trial(self, number: int) -> FrozenTrial:
        """As the storage holds it: in a storage of one study a trial's number is its identifier."""
        return self._storage.get_trial(number)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        if self._shown is None:
            return super()._get_trials(deepcopy, states, use_cache)
        return [trial for trial in self._shown if states is None or trial.state in states]


def _told(trial: FrozenTrial) -> _Told:
    told = _Told.__new__(_Told)
    vars(told).update(vars(trial))
    return told
