"""A study's results, read from its journal: rows, rankings, and the Parquet file beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.checkpoint import tidy, write_atomically
from sweep.objective import Goal
from sweep.tracking.ledger import Ledger, TrialRecord


def rows(ledger: Ledger) -> list[dict[str, Any]]:
    """One row for each epoch that each trial reported."""
    return [
        {"trial": trial.number, "defense": trial.defense, "epoch": epoch, **metrics}
        for trial in ledger
        for epoch, metrics in sorted(trial.reports.items())
    ]


def trial_rows(ledger: Ledger) -> list[dict[str, Any]]:
    """One row for each trial: its end, its parameters, the figures of the epoch that counts, the final ones."""
    return [_trial_row(trial, ledger.state(trial)) for trial in ledger]


def write(ledger: Ledger, folder: Path) -> list[Path]:
    """`results.parquet` (a row a trial) and `epochs.parquet` (a row an epoch), atomically: by who has run it, and does
    no more."""
    written, ledger = [], replace(ledger, is_running=False)
    for name, table in (("results.parquet", trial_rows(ledger)), ("epochs.parquet", rows(ledger))):
        path = folder / name
        tidy(path)
        write_atomically(path, lambda temporary, table=table: pq.write_table(_table(table), temporary))  # type: ignore[misc]
        written.append(path)
    return written


def best_by_defense(ledger: Ledger, goal: Goal, *, include_suspect: bool = False) -> list[TrialRecord]:
    """Each defense's best completed trial, best first; suspect ones only where asked for."""
    best: dict[str, TrialRecord] = {}
    for trial in ledger.ranked(goal, include_suspect=include_suspect):
        best.setdefault(trial.defense, trial)
    return list(best.values())


def pareto(trials: Iterable[TrialRecord], goals: Iterable[Goal], *, include_suspect: bool = False) -> list[TrialRecord]:
    """The completed trials that no other one beats in every goal; a suspect one beats nothing unless asked for."""
    trials = [trial for trial in trials if include_suspect or not trial.is_suspect]
    places = {trial.number: tuple(goal.rank(trial.best["metrics"]) for goal in goals) for trial in trials if trial.best}
    completed = [trial for trial in trials if trial.end == "completed" and trial.number in places]

    def beaten(trial: TrialRecord) -> bool:
        mine = places[trial.number]
        return any(
            theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True))
            for other in completed
            for theirs in [places[other.number]]
        )

    return [trial for trial in completed if not beaten(trial)]


def hypervolume(points: Iterable[tuple[float, float]]) -> float:
    """The area that points of two goals, both raised, hold above (0, 0): what any of them beats in both."""
    area, highest = 0.0, 0.0
    for x, y in sorted(points, reverse=True):
        area += x * max(y - highest, 0.0)
        highest = max(highest, y)
    return area


def _trial_row(trial: TrialRecord, state: str) -> dict[str, Any]:
    figures = trial.best["metrics"] if trial.best else {}
    return {
        "trial": trial.number,
        "defense": trial.defense,
        "end": state,
        "validity": "suspect" if trial.is_suspect else trial.validity["verdict"] if trial.validity else None,
        "suspect": ", ".join(trial.failed) if trial.is_suspect or trial.validity else None,
        "investigate": ", ".join(trial.validity["investigate"]) if trial.validity else None,
        "origin": trial.origin,
        "promoted_from": trial.promoted_from,
        "epochs": trial.epoch,
        "best_epoch": trial.best["epoch"] if trial.best else None,
        "gradient_evaluations": trial.gradient_evaluations,
        "error": f"{trial.error['class']}: {trial.error['message']}" if trial.error else None,
        **{f"parameter/{name}": value for name, value in trial.params.items()},
        **{f"best/{name}": value for name, value in figures.items()},
        **{f"final/{name}": value for name, value in trial.final.items()},
        **{f"validity/{name}": value for name, value in (trial.validity or {"figures": {}})["figures"].items()},
    }


def _table(records: list[dict[str, Any]]) -> pa.Table:
    """Columns in order of appearance. A parameter whose branches give it values of several types becomes text."""
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {}
    for name in names:
        values = [record.get(name) for record in records]
        kinds = {type(value) for value in values if value is not None} - {int, float}
        mixed = len(kinds) > 1 or (kinds and any(type(value) in (int, float) for value in values))
        columns[name] = [None if value is None else str(value) for value in values] if mixed else values
    return pa.table(columns)
