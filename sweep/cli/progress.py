"""A sweep while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sweep.cli.tables import named_trial
from sweep.errors import counted
from sweep.orchestration.search import Search
from sweep.preview import describe_cost
from sweep.study import Study
from sweep.tracking.ledger import ENDS, Ledger, TrialRecord, readable

PLAIN_EVERY = 30.0  # seconds between summaries where there is no terminal
DRAWN_EVERY = 0.25  # seconds between pictures where there is one: long studies have many trials to count


class Progress:
    """Hears every event of the journal as it is written, and shows what it means."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.console = Console(highlight=False)
        self.ledger = Ledger()
        self.search: Search | None = None
        self._began = time.monotonic()
        self._already = 0  # trials that had ended before this session
        self._done = 0.0  # of the budget, before this session
        self._said = time.monotonic()
        self._live = (
            Live(console=self.console, refresh_per_second=4, transient=True) if self.console.is_terminal else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            if self._live:
                self._live.stop()

    def follow(self, search: Search) -> None:
        """Show this search's trials from now on, and say what was restored."""
        self.search, self.ledger = search, search.ledger
        self._already, self._done = self._ended(), self._share()
        if search.restored:
            for line in restored(search):
                self.say(line)
        else:
            self.say(f"{self.study.name}: {counted(self.study.budget.trials, 'trial')}; starting")

    def say(self, text: str) -> None:
        """A line that stays. Where nobody takes it (a terminal that is gone, a full disk), the sweep goes on unseen."""
        with suppress(OSError):
            self.console.print(text, markup=False, soft_wrap=True)

    def hear(self, event: Mapping[str, Any]) -> None:
        """An event was journaled."""
        if event["event"] == "noted":
            self.say(f"{named_trial(self.study, event['trial'], 4)}  {event['text']}")
        if event["event"] == "ended":
            self.say(self._ending(self.ledger.trials[event["trial"]]))
        if event["event"] == "lost":
            trial = self.ledger.trials[event["trial"]]
            self.say(self._line(trial, "lost", f"{readable(event['error'])}; to be taken up again"))
        if time.monotonic() - self._said < (DRAWN_EVERY if self._live else PLAIN_EVERY):
            return
        if self._live:
            with suppress(OSError):
                self._live.update(self._picture())
        else:
            self.say(self._summary())
        self._said = time.monotonic()

    def _picture(self) -> Group:
        lines = [Text(self._summary(), style="bold")]
        lines += [] if self.study.confirms else [Text(self._best())]  # of fresh seeds none is the best
        lines += [Text(self._running(trial), style="dim") for trial in self.ledger.in_flight]
        return Group(*lines)

    def _summary(self) -> str:
        counts = self.ledger.counts()
        ended, total = self._ended(), self.study.budget.trials
        states = ", ".join(f"{counts[end]} {end}" for end in counts)
        elapsed = time.monotonic() - self._began
        done_now = ended - self._already
        rate, gained = done_now / elapsed if elapsed else 0.0, self._share() - self._done
        left = f", about {_clock(elapsed * (1 - self._share()) / gained)} left" if rate and gained > 0 else ""
        left += f" at {60 * rate:.1f} trials a minute" if left else ""
        cost = describe_cost(self.ledger.gradient_evaluations)
        done = f"{ended}/{counted(total, 'trial')} ({states})"
        return f"{done}  {_clock(elapsed)} elapsed{left}  {cost} gradient evaluations"

    def _best(self) -> str:
        goal = self.study.objective[0]
        ranked = self.ledger.ranked(goal)
        if not ranked or ranked[0].best is None:
            return "best so far: none completed yet"
        best = ranked[0]
        return f"best so far: trial {best.number} {best.defense}, {goal.metric} {best.best['metrics'][goal.metric]:.4f}"  # type: ignore[index]

    def _running(self, trial: TrialRecord) -> str:
        value = trial.reports.get(trial.epoch, {}).get(self.study.objective[0].metric)
        figure = f"  {value:.4f}" if value is not None else ""
        return f"  {named_trial(self.study, trial.number, 4)} {trial.defense:<24} epoch {trial.course}{figure}"

    def _ending(self, trial: TrialRecord) -> str:
        metric = self.study.objective[0].metric
        figure = f"{trial.best['metrics'][metric]:.4f}" if trial.best and metric in trial.best["metrics"] else "-"
        reason = self._spent(trial) + (f"  {readable(trial.error)}" if trial.error else "")
        reason += f"  promoted from {trial.promoted_from}" if trial.promoted_from is not None else ""
        reason += f"  suspect: {', '.join(trial.validity['suspect'])}" if trial.is_suspect and trial.validity else ""
        return self._line(trial, str(trial.end), figure + reason)

    def _spent(self, trial: TrialRecord) -> str:
        seconds, validating = trial.timed
        if not seconds:
            return ""
        memory = trial.reports[trial.epoch].get("peak_memory_mb", 0.0)
        return f"  {seconds:.0f} s, {validating / seconds:.0%} of it validation" + (
            f"; {memory:.0f} MB" if memory else ""
        )

    def _line(self, trial: TrialRecord, what: str, rest: str) -> str:
        epochs = f"epoch {trial.course}"
        return f"{named_trial(self.study, trial.number, 4)}  {trial.defense:<24} {what:<10} {epochs:<14} {rest}"

    def _share(self) -> float:
        """How much of the budget is spent, by the limit that is nearest, in [0, 1]."""
        budget, ledger = self.study.budget, self.ledger
        shares = [self._ended() / budget.trials]
        shares += [ledger.gradient_evaluations / budget.gradient_evaluations] if budget.gradient_evaluations else []
        shares += [ledger.hours / budget.hours] if budget.hours else []
        return min(max(shares), 1.0)

    def _ended(self) -> int:
        return sum(trial.end is not None for trial in self.ledger)


def restored(search: Search) -> Iterator[str]:
    """What was found, and found to agree, when the study was opened again."""
    counts: dict[str, int] = {end: search.restored[end] for end in ENDS}
    counts["in flight"] = search.restored.total() - sum(counts.values())
    yield f"resumed {search.study.name}: {_listed(counts)}"
    if search.rungs:
        rungs = {f"reached {level:,}": count for level, count in search.rungs.populations().items()}
        yield f"  rungs   {_listed(rungs)}; each report judged again, with the verdict that the journal holds"
    yield f"  Optuna  {_listed(search.sampler.states())}; every state, value and parameter is the journal's"
    if search.ledger.confirmations and not search.is_over:
        yield "  test    the split was opened already: what is found now is no candidate, unless it is opened again"
    if search.ledger.inherited:
        yield f"  learnt  from {counted(len(search.ledger.inherited), 'trial')} of another study"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none yet"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
