"""The search as Ray Tune's adaptors use it: messages as text, trials under Tune's names, errors kept for the end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sweep.orchestration.attempts import Memory
from sweep.orchestration.search import Search
from sweep.orchestration.worker import Assignment

Error = dict[str, str]
DIED = {"class": "WorkerDied", "message": "its process was killed, or crashed (what it wrote before is in its log)"}
NODE_DIED = {"class": "NodeDied", "message": "its node was lost"}
CUT_OFF = {"class": "WorkerUnreachable", "message": "its process was killed, or its node was lost or cut off"}
KILLED_FOR_MEMORY = {"class": "OutOfMemoryError", "message": "its node ran out of memory, and Ray killed its process"}


class Bridge:
    """What goes wrong in the search itself (a full disk, say) would be wrapped by Tune, or logged and forgotten: it is
    kept as `failure`, lets the running trials finish their epoch as Ctrl-C does, and is raised when Tune is done.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.failure: Exception | None = None
        self._live: dict[str, int] = {}  # by Tune's name: the trial that it runs or is about to
        self._begun: set[str] = set()
        self._deaths: dict[str, Error] = {}

    @property
    def live(self) -> Mapping[str, int]:
        """The trials that Tune runs or is about to, by its names of them."""
        return self._live

    def ask(self, trial_id: str) -> Assignment | None:
        """An assignment, or None: not now."""
        with self._kept():
            assignment = self.search.ask()
            if assignment is not None:
                self._live[trial_id] = assignment.number
                return assignment
        return None

    @property
    def is_over(self) -> bool:
        return self.search.is_over

    def hear(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether the trial goes on."""
        self._begun.add(trial_id)
        goes_on = False
        with self._kept():
            goes_on = self.search.hear(json.loads(result["message"]))
        if not goes_on:
            self._gone(trial_id)
        return goes_on

    def placed(self, trial_id: str) -> None:
        """The trial has its place, and a process starts there or runs."""
        if trial_id not in self._begun:
            self.search.attempts.placed(self._live[trial_id])

    def returned(self, trial_id: str) -> None:
        """Tune will not run the trial: it is to have another place."""
        number = self._gone(trial_id)
        with self._kept():
            if number is not None:
                self.search.returned(number)

    def overdue(self) -> set[str]:
        """Tune's names of the trials whose processes are to be killed."""
        errors: dict[int, Error] = {}
        with self._kept():
            errors = self.search.overdue()
        late = {name: errors[number] for name, number in self._live.items() if number in errors}
        for name in late.keys() - self._begun:  # no attempt, and so the journal does not tell of it
            self.search.say(f"trial {self._live[name]:>4}  {late[name]['message']}; to be tried again")
        self._deaths |= late
        return set(late)

    def died(self, trial_id: str, text: str) -> None:
        """A trial's process died, of what Ray says in `text`. For want of Ray's room, they all would."""
        if re.search(r"\b(OutOfDiskError|ObjectStoreFullError)\b", text):
            self.no_room()
        self._deaths.setdefault(trial_id, death(text))

    def no_room(self) -> None:
        """Ray has no room for what it carries between processes: no trial's fault, and a machine's state to mend."""
        self.search.halt(
            "Ray's object store is full, and so is the disk that it spills to: `ray memory` shows what is in it, `df` "
            "the disks. Free them, or give Ray more (`ray start --object-store-memory`, --object-spilling-directory); "
            "then `sweep resume` goes on: nothing that was written is lost"
        )

    def lost(self, trial_id: str) -> None:
        """The trial's process will not be replaced by Tune."""
        error, began = self._deaths.get(trial_id, DIED), trial_id in self._begun
        number = self._gone(trial_id)
        with self._kept():
            if number is not None:
                memory: Memory | None = "host" if error == KILLED_FOR_MEMORY else None
                self.search.lost(number, error, memory=memory, began=began)

    def lost_for_memory(self, error: BaseException) -> None:
        """A node's memory monitor killed workers, and Tune ended over it: every live trial is to be taken up again.

        The error names the killed processes. Where it names none of ours, it may have been any of them.
        """
        killed = {int(pid) for pid in re.findall(r"Selected to kill:.*?\bpid=(\d+)", str(error))}
        trials = self.search.ledger.trials
        guilty = {name for name in self._begun if trials[self._live[name]].pid in killed}
        for name in sorted(self._live, key=lambda name: name not in self._begun):
            began, number = name in self._begun, self._live[name]
            self._gone(name)
            with self._kept():
                if guilty and name not in guilty:
                    self.search.returned(number)
                else:
                    self.search.lost(number, KILLED_FOR_MEMORY, memory="host", began=began)

    def _gone(self, trial_id: str) -> int | None:
        self._begun.discard(trial_id)
        self._deaths.pop(trial_id, None)
        return self._live.pop(trial_id, None)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            self.search.interrupted = True


def death(text: str) -> Error:
    """What Ray tells of a dead process, at length and with its numbers, as a line that is the same for equal deaths."""
    if "low on memory" in text:
        return KILLED_FOR_MEMORY
    if "node has died" in text:
        return NODE_DIED
    if "actor is temporarily unavailable" in text:
        return CUT_OFF
    if "actor died" in text and "its creation task" not in text:
        return DIED
    name, _, message = (text.strip().splitlines() or [""])[-1].partition(": ")
    return {"class": name.rpartition(".")[2], "message": message} if message else DIED
