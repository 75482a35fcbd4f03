"""Attempts at a trial: when one is overdue, and what becomes of a trial whose attempt was lost.

An exception of a trial is its end: it would come again. An attempt is lost where the trial is not to blame: its
process died, its node is gone, it hangs, or memory ran out that it shares with others. `Study.retries` says how often
a trial is taken up again after that (a node's loss need not count: `TrialRecord.is_blamed`). A worker that cannot even
start (a broken environment) is no attempt at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from sweep.errors import StudyError, counted
from sweep.provisions import Resources
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

Memory = Literal["gpu", "host"]
LEAST_START = 600.0  # seconds that a process may take to start, whatever the limits: imports may come over a network
FALSE_STARTS = 3  # workers that could not start, one after another with none running, before the sweep gives up


class Attempts:
    """The attempts that this session makes.

    `node` is the most that a trial can get; without Ray it is what each trial has.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.node = study.per_trial
        self._heard: dict[int, float] = {}  # of a running trial, when (on the monotonic clock)
        self._starting: dict[int, float] = {}  # of a trial whose process has said nothing yet, since when
        self._placing: set[int] = set()
        self._false_starts = 0
        self._is_held = False

    @property
    def on_hold(self) -> bool:
        """No trial is to begin now: a larger one waits until room is free, or workers fail to start elsewhere."""
        return bool(self._placing) or (self._is_held and bool(self._heard))

    def look_at(self, nodes: Sequence[Resources]) -> None:
        """The nodes that there are now. A trial lives on one, and can get all of the largest that holds it at all."""
        needs = self.study.per_trial
        holding = [node for node in nodes if needs.fit(node)]
        most = 1.0 if needs.gpus else 0.0  # of a node's GPUs
        self.node = max(holding, key=lambda node: (min(node.gpus, most), node.cpus), default=needs)

    def place(self, share: int) -> Resources:
        """What a trial of this share is to get now."""
        return self.study.per_trial.times(share, self.node)

    def assigned(self, trial: TrialRecord) -> None:
        """Somebody is to run the trial. Smaller ones would for ever take the room that a larger one waits for."""
        if trial.share > 1:
            self._placing.add(trial.number)

    def placed(self, number: int) -> None:
        """The trial has its place and its process starts there: from now on its time counts. May be said again."""
        self._starting.setdefault(number, time.monotonic())

    def began(self, number: int) -> None:
        self._starting.pop(number, None)
        self._placing.discard(number)
        self._false_starts = 0
        self.heard(number)

    def heard(self, number: int) -> None:
        """The trial's process said something."""
        self._heard[number] = time.monotonic()
        self._is_held = False

    def excuse(self) -> None:
        """Hold nobody's silence until now against a trial."""
        self._heard = dict.fromkeys(self._heard, time.monotonic())

    def over(self, number: int) -> None:
        """The trial ended, or its attempt did."""
        self._heard.pop(number, None)
        self._starting.pop(number, None)
        self._placing.discard(number)
        self._is_held = False

    def overdue(self, ledger: Ledger) -> Iterator[tuple[TrialRecord, Literal["timed_out", "lost"], dict[str, str]]]:
        """The trials that are over a limit, each once; which limit that is; the error that tells of it."""
        limits, now = self.study.limits, time.monotonic()
        hours, name = min(((hours, name) for name, hours in limits if hours is not None), default=(math.inf, ""))
        for number, since in list(self._starting.items()):
            if now - since > max(3600 * hours, LEAST_START):
                limit = (
                    f"its process did not start in {counted(hours, 'hour')} (limits.{name}) and {LEAST_START:g} seconds"
                )
                self.over(number)
                yield ledger.trials[number], "lost", {"class": "Hang", "message": limit}
        for number, heard in list(self._heard.items()):
            trial, silence = ledger.trials[number], now - heard
            if limits.trial_hours is not None and trial.seconds + silence > 3600 * limits.trial_hours:
                limit = (
                    f"over the study's limit of {counted(limits.trial_hours, 'hour')} for a trial (limits.trial_hours)"
                )
                self.over(number)
                yield trial, "timed_out", {"class": "TimeLimit", "message": limit}
            elif limits.epoch_hours is not None and silence > 3600 * limits.epoch_hours:
                longest = counted(limits.epoch_hours, "hour")
                limit = f"no epoch finished in the study's limit of {longest} (limits.epoch_hours)"
                self.over(number)
                yield trial, "lost", {"class": "Hang", "message": limit}

    def next_share(self, trial: TrialRecord, error: Mapping[str, str], memory: Memory | None) -> int | None:
        """What the trial gets when it is taken up again, in multiples of the study's `per_trial`; None: it is not.

        Where memory ran out it is twice as much, so that fewer trials share a GPU or a node, and its figures stay the
        same. A trial that has all that there is would only run out of it again.
        """
        if trial.is_blamed(error) and trial.blamed >= self.study.retries:
            return None
        if memory is None:
            return trial.share
        has, gets = self.place(trial.share), self.place(2 * trial.share)
        grows = gets.gpus > has.gpus if memory == "gpu" else gets != has
        return 2 * trial.share if grows else None

    def not_begun(self, number: int, error: dict[str, str]) -> None:
        """The trial's worker could not start. While others run, none begins before one of them says something.

        Raises StudyError where workers fail to start one after another and none runs.
        """
        self.over(number)
        if self._heard:
            self._is_held = True
            return
        self._false_starts += 1
        if self._false_starts >= FALSE_STARTS:
            raise StudyError(
                f"no worker can start: {error['class']}: {error['message']}; mend the environment of the machines that "
                "run trials, then `sweep resume` goes on"
            )
