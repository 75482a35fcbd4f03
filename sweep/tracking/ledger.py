"""The journal's events, summed up: what is known of every trial. Live and after a crash alike, this is how it is known.

inherited trials of another study, to learn from
session   a sweep began or was resumed          asked     the sampler proposed a trial
started   a worker took it up                   reported  it finished an epoch; what early stopping said
lost      its process died, hung or ran out of memory, and it is to be taken up again
ended     it is over, and how                   reopened  it had failed, and is to be taken up again by request
closed    the session ended                     noted     what was met in a trial's folder, in words
raced     which of the best withstand a stronger attack (sweep.analysis.opening)
confirmation   the test split was opened for the best few (the same)
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from sweep.errors import JournalError, unknown
from sweep.objective import WORST, Goal, Rank

End = Literal["completed", "stopped", "diverged", "failed", "timed_out"]
_BETWEEN_SESSIONS = ("session", "raced", "confirmation")  # the time before them was nobody's
ENDS: tuple[End, ...] = get_args(End)
STRANGE = (KeyError, TypeError, ValueError, AttributeError)  # what an event raises that is not as we write it


class Metrics(Mapping[str, float]):
    """A report's figures in a fifth of a dict's room: reports of the same metrics share their names."""

    __slots__ = ("_places", "_values")
    _known: ClassVar[dict[tuple[str, ...], dict[str, int]]] = {}

    def __init__(self, metrics: Mapping[str, float]) -> None:
        names = tuple(metrics)
        self._places = self._known.setdefault(names, {name: place for place, name in enumerate(names)})
        self._values = array("d", metrics.values())

    def __getitem__(self, name: str) -> float:
        return self._values[self._places[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass
class TrialRecord:
    """One trial as the journal tells it."""

    number: int
    config: dict[str, Any]
    params: dict[str, Any]
    origin: str
    attributes: dict[str, Any]  # the sampler's own notes
    end: End | None = None
    attempts: int = 0
    losses: list[dict[str, str]] = field(default_factory=list)  # the errors of attempts that were not its own failures
    blamed: int = 0  # how many of them count against it
    whole: int | None = None  # epochs of the configuration in whole, where trials are promoted
    promoted_from: int | None = None  # the trial of the same configuration with the next shorter schedule
    share: int = 1  # times the study's resources that the next attempt gets
    place: dict[str, str] = field(default_factory=dict)  # node, and log of the process, of the last attempt
    pid: int | None = None  # of the last attempt's process
    seconds: float = 0.0  # of all attempts, as far as the journal tells
    reports: dict[int, Mapping[str, float]] = field(default_factory=dict)  # by epoch
    is_condemned: bool = False  # early stopping said stop
    best: dict[str, Any] | None = None  # {"epoch", "metrics"} of the epoch that counts
    final: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # the SHA-256 of each that it left; none in older journals
    error: dict[str, str] | None = None
    validity: dict[str, Any] | None = None  # what the checks found; None where none were asked
    refuted: list[str] = field(default_factory=list)  # checks failed when it was confirmed: see sweep.analysis.opening
    _lost_at: int = 0  # its last epoch at its last loss
    _since: float | None = None  # until when the running attempt's seconds are counted

    @property
    def epoch(self) -> int:
        """The last epoch reported; 0 before the first."""
        return max(self.reports, default=0)

    @property
    def defense(self) -> str:
        defense = self.config["defense"]
        return str(defense["name"] if isinstance(defense, dict) else defense)

    @property
    def is_whole(self) -> bool:
        """Whether it is trained for all of its configuration's epochs; else for a rung's, and it cannot win."""
        return self.whole is None or self.config["epochs"] >= self.whole

    @property
    def course(self) -> str:
        """How far it is, of how many epochs: ``2/9``; of a training that is not whole ``2/9 of 24``."""
        return f"{self.epoch}/{self.config['epochs']}" + ("" if self.is_whole else f" of {self.whole}")

    @property
    def gradient_evaluations(self) -> float:
        return self.reports[self.epoch].get("gradient_evaluations", 0.0) if self.reports else 0.0

    @property
    def timed(self) -> tuple[float, float]:
        """Seconds of its epochs, and of their validation, which is a part of them."""
        total = self.reports[self.epoch].get("seconds", 0.0) if self.reports else 0.0
        return total, sum(report.get("validation/seconds", 0.0) for report in self.reports.values())

    def tick(self, now: float | None, *, runs: bool) -> None:
        """Count the seconds until an event (None: nobody knows when the process ended). Does it run on?"""
        if self._since is not None and now is not None:
            self.seconds += max(now - self._since, 0.0)
        self._since = now if runs else None

    def is_blamed(self, error: Mapping[str, str]) -> bool:
        """Whether an attempt that was lost so counts against it. A node that went counts where it went before the trial
        came on since its last loss: machines on spot may go any number of times, and no trial takes down all there are.
        """
        return error["class"] != "NodeDied" or self.epoch <= self._lost_at

    @property
    def is_suspect(self) -> bool:
        """Whether a check says that its adversarial accuracy cannot be believed, its own or one of its confirmation."""
        return bool(self.refuted) or (self.validity is not None and self.validity["verdict"] == "suspect")

    @property
    def failed(self) -> list[str]:
        """The checks that say so."""
        own = (self.validity or {}).get("suspect", [])
        return [*own, *(id for id in self.refuted if id not in own)]

    def rank(self, goal: Goal) -> Rank:
        """The trial's place by the figures that count; a trial that did not complete has none."""
        if self.end != "completed" or self.best is None:
            return WORST
        return goal.rank(self.best["metrics"])

    def selected(self, select: Literal["best", "last"], goal: Goal) -> dict[str, Any] | None:
        """The epoch that counts, as the study declares it, and its metrics."""
        if select == "last" and self.reports:
            return {"epoch": self.epoch, "metrics": dict(self.reports[self.epoch])}
        best = self.best_report(goal)
        return {"epoch": best[0], "metrics": dict(best[1])} if best else None

    def best_report(self, goal: Goal) -> tuple[int, Mapping[str, float]] | None:
        """The best epoch so far and its metrics."""
        ranked = max(self.reports.items(), key=lambda item: goal.rank(item[1]), default=None)
        return ranked if ranked and goal.rank(ranked[1]) > WORST else None


def strange(journal: Path, line: int, error: Exception) -> JournalError:
    """The refusal of an event that is whole, and yet not as this version of sweep writes it."""
    what = f"lacks {error}" if isinstance(error, KeyError) else f"is not understood ({error})"
    return JournalError(
        f"{journal}, line {line}: {what}; another version of sweep wrote it: go on with that (study.json names it)"
    )


def readable(error: Mapping[str, str]) -> str:
    """An error of the journal, as people read it."""
    where = "; ".join(f"{name} {error[name]}" for name in ("node", "log") if name in error)
    return f"{error['class']}: {error['message']}" + (f" ({where})" if where else "")


@dataclass
class Ledger:
    """Every trial of a study by number, and the study's sessions."""

    trials: dict[int, TrialRecord] = field(default_factory=dict)
    sessions: int = 0
    races: list[dict[str, Any]] = field(default_factory=list)
    confirmations: list[dict[str, Any]] = field(default_factory=list)  # each time that the test split was opened
    hours: float = 0.0  # wall time of all sessions, as far as the journal tells
    gradient_evaluations: float = 0.0  # of all trials
    inherited: list[TrialRecord] = field(default_factory=list)  # another study's: never among the results
    promoted: dict[int, int] = field(default_factory=dict)  # trials trained again with a longer schedule: as which
    is_running: bool = False  # a session, without which no trial runs
    _since: float | None = None

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take one event of the journal into account. Unknown events are for other readers."""
        handler = getattr(self, f"_{event['event']}", None)
        if handler is not None:
            handler(event)
        if self._since is not None and event["event"] not in _BETWEEN_SESSIONS:
            self.hours += max(event["time"] - self._since, 0.0) / 3600
        self._since = event["time"]

    @property
    def in_flight(self) -> list[TrialRecord]:
        return [trial for trial in self.trials.values() if trial.end is None]

    def counts(self) -> Counter[str]:
        """Trials by end; those that have none by what they are instead."""
        return Counter(map(self.state, self.trials.values()))

    def state(self, trial: TrialRecord) -> str:
        """A trial's end; where it has none yet, `running`, or `interrupted` where nobody runs the study."""
        return trial.end or ("running" if self.is_running else "interrupted")

    @property
    def ended(self) -> int:
        """How many trials are over, whatever their end."""
        return len(self.trials) - len(self.in_flight)

    @property
    def suspects(self) -> list[TrialRecord]:
        return [trial for trial in self.trials.values() if trial.is_suspect]

    def lineage(self, number: int) -> Iterator[int]:
        """A trial, and those of the same configuration that it was promoted from, the shortest last."""
        step: int | None = number
        while step is not None:
            yield step
            step = self.trials[step].promoted_from

    def ranked(self, goal: Goal, *, include_suspect: bool = False) -> list[TrialRecord]:
        """Completed trials, best first; ties go to the earlier trial. A suspect trial has no place unless asked for."""
        believed = [trial for trial in self.trials.values() if include_suspect or not trial.is_suspect]
        completed = [trial for trial in believed if trial.rank(goal) > WORST]
        return sorted(completed, key=lambda trial: trial.rank(goal), reverse=True)

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self.trials.values())

    def _inherited(self, event: Mapping[str, Any]) -> None:
        for trial in event["trials"]:
            reports = {int(epoch): metrics for epoch, metrics in trial["reports"].items()}
            self.inherited.append(TrialRecord(**trial | {"reports": reports}))

    def _session(self, event: Mapping[str, Any]) -> None:
        self.sessions, self.is_running = event["session"], True
        for trial in self.in_flight:
            trial.tick(None, runs=False)

    def _closed(self, event: Mapping[str, Any]) -> None:
        self.is_running = False

    def _asked(self, event: Mapping[str, Any]) -> None:
        number, config = event["trial"], event["config"]
        if before := self.trials.get(number - 1):  # most of a configuration is the last one's too: it is held once
            config = {
                key: before.config[key] if before.config.get(key) == value else value for key, value in config.items()
            }
        trial = TrialRecord(number, config, event["params"], event["origin"], event.get("attributes", {}))
        trial.whole, trial.promoted_from = event.get("whole"), event.get("promoted_from")
        if trial.promoted_from is not None:
            self.promoted[trial.promoted_from] = number
        self.trials[number] = trial

    def _raced(self, event: Mapping[str, Any]) -> None:
        self.races.append(dict(event))

    def _confirmation(self, event: Mapping[str, Any]) -> None:
        self.confirmations.append({**event, "ended": self.ended})  # what ends later was no candidate

    def _started(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial"]]
        trial.attempts = event["attempt"]
        trial.pid = event["pid"]
        trial.tick(event["time"], runs=True)
        trial.place = {name: event[name] for name in ("node", "log") if event.get(name)}

    def _lost(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial"]]
        trial.tick(event["time"], runs=False)
        trial.blamed += trial.is_blamed(event["error"])
        trial.losses.append(event["error"])
        trial._lost_at = trial.epoch
        trial.share = event["share"]

    def _reopened(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial"]]
        trial.end, trial.best, trial.error, trial.losses, trial.blamed = None, None, None, [], 0

    def _reported(self, event: Mapping[str, Any]) -> None:
        trial = self.trials[event["trial"]]
        trial.tick(event["time"], runs=True)
        before = trial.gradient_evaluations
        trial.reports[event["epoch"]] = Metrics(event["metrics"])
        self.gradient_evaluations += trial.gradient_evaluations - before
        trial.is_condemned = event.get("decision") == "stop"

    def _ended(self, event: Mapping[str, Any]) -> None:
        if event["end"] not in ENDS:
            raise ValueError(unknown("end", event["end"], ENDS))
        trial = self.trials[event["trial"]]
        trial.tick(event["time"], runs=False)
        trial.end, trial.best, trial.error = event["end"], event["best"], event["error"]
        trial.final, trial.files = event["final"] or {}, event.get("files") or {}
        trial.validity = event.get("validity")  # journals of before the checks have none
        trial.attributes = event.get("attributes", trial.attributes)
