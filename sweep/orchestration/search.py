"""The search: proposes, listens, stops, remembers. It knows nothing of Ray; whatever runs trials calls

    ask() -> an assignment, or None when no further trial begins
    hear(message) -> whether that trial goes on
    lost(number, error) when a trial's process is gone
    overdue() -> the trials whose processes are to be killed

What is decided is journaled before anyone acts on it. What a search knows is what its journal says, so opening one is
resuming it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import getpid
from socket import gethostname
from typing import Any

from sweep import disk
from sweep.errors import DiskFullError, JournalError, StorageError, SweepError
from sweep.orchestration.attempts import Attempts, Memory
from sweep.orchestration.budget import Spending
from sweep.orchestration.evidence import ending
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.provenance import versions
from sweep.orchestration.restore import contradiction, refuse_disagreements
from sweep.orchestration.sampler import Sampler
from sweep.orchestration.turns import Turn, enqueued, next_turn, rungs_for
from sweep.orchestration.worker import Assignment
from sweep.tracking.journal import Journal, read
from sweep.tracking.ledger import STRANGE, Ledger, TrialRecord, strange
from sweep.tracking.plausible import contradicted

STORE_SECONDS = 0.5  # that a question for a trial waits for the store that holds the study
Listener = Callable[[Mapping[str, Any]], None]


class Search:
    """A study being searched. Open it with `opened`, which holds the folder's lock."""

    def __init__(self, folder: StudyFolder, listener: Listener | None = None) -> None:
        self.folder = folder
        self.study = folder.study()
        self._fingerprint = self.study.fingerprint
        self.goal = self.study.objective[0]
        self.interrupted = False
        self.halted: SweepError | None = None  # why no further trial begins: the disk is full, say
        self.is_waiting = False  # no trial begins until the store that holds the study is back
        self.say: Callable[[str], None] = print
        self.ledger = Ledger()
        self._spending = Spending(self.study, self.ledger)
        self.rungs = rungs_for(self.study, self.ledger)
        self._listener = listener
        self._journal = Journal(folder.journal)
        for line, (event, _) in enumerate(read(folder.journal), start=1):
            try:
                if reason := self._contradiction(event):
                    raise contradicted(folder.journal, line, reason)
                self._apply(event)
            except STRANGE as error:
                raise strange(folder.journal, line, error) from error
        self.restored = self.ledger.counts()
        self.attempts = Attempts(self.study)
        self.sampler = Sampler(self.study, folder.path, self.ledger, self.ledger.inherited)
        refuse_disagreements(folder.path, self.sampler.disagreements(self.ledger))
        for trial in self.ledger:  # the last session may have had no time, and a journal may come from a copy
            self.folder.clear(trial)
        self._waiting = self.ledger.in_flight
        here = {"host": gethostname(), "pid": getpid(), "versions": versions(), "fingerprint": self._fingerprint}
        self._append("session", session=self.ledger.sessions + 1, **here)

    def ask(self) -> Assignment | None:
        """A trial to run: first those that are to be taken up again, then new ones within the budget. None: not now."""
        if not self.interrupted and (shortage := disk.shortage(self.folder.path)):
            self.halt(shortage)
        if (keeper := self.folder.keeper) and keeper.lost:
            self.halt(keeper.lost, StorageError)
        if self.interrupted or self.attempts.on_hold:
            return None
        while self._waiting:
            trial = self._waiting.pop(0)
            if not trial.is_condemned:
                return self._assignment(trial)
            self._end(trial, "stopped")  # the last session was killed between the verdict and the end
        if self._spending.is_over:
            return None
        number, turn = len(self.ledger.trials), next_turn(self.study, self.ledger)
        if self.rungs and (promotion := self.rungs.promotion(turn.branch)):
            self._append("asked", trial=number, **promotion.asked)
            self.sampler.promote(self.ledger.trials[number])
        else:
            self._propose(number, turn)
        return self._assignment(self.ledger.trials[number])

    @property
    def is_over(self) -> bool:
        """No trial begins any more, whatever becomes of those that run."""
        return self.interrupted or (self._spending.is_over and not self.ledger.in_flight)

    def hear(self, message: Mapping[str, Any]) -> bool:
        """Take a trial's message. False: the trial is to stop, because it ended or early stopping says so."""
        trial = self.ledger.trials[message["trial"]]
        if trial.end is not None:
            return False
        if "end" in message:
            self._heard_end(trial, message)
            return False
        if "epoch" not in message:
            self._heard_of(trial, message)
            return not self.interrupted
        self.attempts.heard(trial.number)
        if message["epoch"] in trial.reports:  # a resumed trial says again what is known
            return True
        if not self._report(trial, message):
            self._end(trial, "stopped")
            return False
        return not self.interrupted

    def started(self, number: int, node: str, pid: int, log: str | None = None) -> None:
        """A process took the trial up."""
        attempt = self.ledger.trials[number].attempts + 1
        self.attempts.began(number)
        self._append("started", trial=number, attempt=attempt, node=node, pid=pid, log=log)

    def lost(self, number: int, error: dict[str, str], *, memory: Memory | None = None, began: bool = True) -> None:
        """The trial's process is gone: the machine's failure, not the configuration's. It is taken up again, or failed.

        Raises StudyError where workers cannot even begin.
        """
        trial = self.ledger.trials[number]
        if trial.end is not None or self.interrupted:
            return
        if not began:
            self._waiting.append(trial)
            self.attempts.not_begun(number, error)
        elif share := self.attempts.next_share(trial, error, memory):
            self.attempts.over(number)
            error = trial.place | error
            self._append("lost", trial=number, attempt=trial.attempts, error=error, share=share)
            self._waiting.append(trial)
        else:
            self._end(trial, "failed", error=error)

    def returned(self, number: int) -> None:
        """The trial's process was ended for another's sake. It is taken up again, as after a crash of the sweep."""
        self.attempts.over(number)
        self._waiting.append(self.ledger.trials[number])

    def reopen_failed(self) -> int:
        """Have the trials that failed taken up again, from their checkpoints where they have one; says how many."""
        failed = [trial.number for trial in self.ledger if trial.end == "failed"]
        for number in failed:
            self._append("reopened", trial=number)
        if failed:  # Optuna takes nothing back that it was told, and is told anew
            self.sampler = Sampler(self.study, self.folder.path, self.ledger, self.ledger.inherited)
            self._waiting = self.ledger.in_flight
        return len(failed)

    def overdue(self) -> dict[int, dict[str, str]]:
        """The trials over a limit, with the error that tells of it: their processes are to be killed now.

        One over its own time ends here; one that hangs is lost when its process is.
        """
        if (keeper := self.folder.keeper) and keeper.away:  # the trials wait for it, too, and none is to blame
            self.attempts.excuse()
        found = {}
        for trial, what, error in self.attempts.overdue(self.ledger):
            found[trial.number] = error
            if what == "timed_out":
                self._end(trial, what, error=error)
        return found

    def close(self) -> None:
        """End the session. Trials in flight stay so, and are taken up when the study is resumed."""
        reason = "finished" if self._spending.is_over and not self.ledger.in_flight else "interrupted"
        try:
            self._append("closed", reason=reason)
        except JournalError:
            if not self.halted:
                raise  # else the disk is full, which was said already, and nothing depends on this event
        finally:
            self._journal.close()

    @property
    def cut(self) -> str | None:
        """A sentence where the journal's torn last line was cut off on opening."""
        return self._journal.cut

    def _propose(self, number: int, turn: Turn) -> None:
        config, params, attributes = self.sampler.ask(number, turn)
        complete = self.study.complete(config, number)
        proposed = self.rungs.proposed(complete) if self.rungs else {"config": complete}
        origin = "sampler" if enqueued(self.study, turn) is None else "enqueued"
        self._append("asked", trial=number, **proposed, params=params, origin=origin, attributes=attributes)

    def _report(self, trial: TrialRecord, message: Mapping[str, Any]) -> bool:
        epoch, metrics = message["epoch"], message["metrics"]
        decision, rungs = self._verdict(trial, epoch, metrics)
        self._append("reported", trial=trial.number, epoch=epoch, metrics=metrics, rungs=rungs, decision=decision)
        return decision == "continue"

    def _verdict(self, trial: TrialRecord, epoch: int, metrics: Mapping[str, float]) -> tuple[str, dict[str, float]]:
        return self.rungs.verdict(trial, epoch, metrics) if self.rungs else ("continue", {})

    def _contradiction(self, event: Mapping[str, Any]) -> str | None:
        """Why this event cannot follow those before it, or None. Early stopping judges each report once more."""
        if reason := contradiction(event, self.study, self.ledger, self._fingerprint, self.rungs):
            return reason
        if event["event"] == "reported":
            verdict = self._verdict(self.ledger.trials[event["trial"]], event["epoch"], event["metrics"])
            if verdict != (event["decision"], event["rungs"]):
                said = f"'{event['decision']}' and the rungs {event['rungs']}"
                return f"says {said}, where the reports before it make '{verdict[0]}' and {verdict[1]}"
        return None

    def _heard_of(self, trial: TrialRecord, message: Mapping[str, Any]) -> None:
        if "halted" in message:
            self.halt(message["halted"], StorageError if "store" in message else DiskFullError)
        elif "note" in message:
            self._append("noted", trial=trial.number, text=message["note"])
        else:
            self.started(trial.number, message["node"], message["pid"], message["log"])

    def _heard_end(self, trial: TrialRecord, message: Mapping[str, Any]) -> None:
        if message["end"] == "out_of_memory":
            self.lost(trial.number, message["error"], memory=message["memory"])
        else:
            end, fields = ending(message, trial.selected(self.study.select, self.goal))
            self._end(trial, end, **fields)

    def _end(
        self,
        trial: TrialRecord,
        end: str,
        *,
        final: Any = None,
        validity: Any = None,
        files: Any = None,
        error: dict[str, str] | None = None,
    ) -> None:
        self.attempts.over(trial.number)
        if error and end != "diverged":
            error = trial.place | error
        best = trial.selected(self.study.select, self.goal)
        kept = {"best": best, "final": final, "validity": validity, "files": files}
        self._append("ended", trial=trial.number, end=end, **kept, error=error)
        self.sampler.tell(trial)
        self.folder.clear(trial)

    def halt(self, reason: str, kind: type[SweepError] = DiskFullError) -> None:
        """Begin no further trial, and let those that run finish their epoch and save, as Ctrl-C does."""
        self.halted = self.halted or kind(reason)
        self.interrupted = True

    def _assignment(self, trial: TrialRecord) -> Assignment | None:
        """The trial as it is to be run; None: when the store knows of it, which was not yet to be reached."""
        keeper = self.folder.keeper
        self.is_waiting = keeper is not None and not keeper.abreast(STORE_SECONDS)
        if self.is_waiting:
            self._waiting.insert(0, trial)
            return None
        self.attempts.assigned(trial)
        folder, seconds = self.folder.assigned(trial.number), 60 * self.study.checkpoint_minutes
        return Assignment(trial.number, trial.config, folder, trial.epoch, trial.share, seconds)

    def _append(self, event: str, **fields: Any) -> None:
        self._apply(written := self._journal.append(event, **fields))
        if self._listener:
            self._listener(written)

    def _apply(self, event: Mapping[str, Any]) -> None:
        self.ledger.apply(event)
        if self.rungs and event["event"] == "reported":
            self.rungs.record(event["trial"], event["rungs"])
        if self.rungs and event["event"] == "ended" and self.ledger.trials[event["trial"]].is_suspect:
            self.rungs.forget(event["trial"])


@contextmanager
def opened(
    folder: StudyFolder, listener: Listener | None = None, say: Callable[[str], None] = print
) -> Iterator[Search]:
    """A search that owns its folder, closed at the end whatever happens. Raises what halted it, a DiskFullError or a
    StorageError."""
    with disk.explained(folder.path), folder.owned(say) as taken_over:
        if taken_over:
            say(taken_over)
        search = Search(folder, listener)
        search.say = say
        if search.cut:
            say(search.cut)
        try:
            yield search
        except KeyboardInterrupt:
            search.interrupted = True
        finally:
            search.close()
        if search.halted:
            raise search.halted
