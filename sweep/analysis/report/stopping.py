"""What early stopping did, and whether it could be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from sweep.orchestration.early_stopping import Rungs
from sweep.study import Study
from sweep.tracking import journal
from sweep.tracking.ledger import Ledger

_FEWEST = 5  # trials below which a rank correlation is not worth printing
_TRUSTED = 0.7  # a rank correlation above this means that early stopping mostly stopped the right ones


@dataclass(frozen=True)
class RungRow:
    """One rung: how many reached it, and how well it foretold the end among those that were let through."""

    level: int
    reached: int
    went_on: int
    correlation: float | None  # Spearman's, with the completed trials' final objective
    compared: int
    with_next: float | None  # Spearman's, with the values at the next rung, of the trials that reached it


def rungs(study: Study, ledger: Ledger, path: Path) -> list[RungRow]:
    """What early stopping did, from the journal at `path`: as it counts, without the suspect trials."""
    if study.early_stopping is None:
        return []
    recorded = Rungs(study.early_stopping, study.objective[0])
    for event, _ in journal.read(path):
        if event["event"] == "reported":
            recorded.record(event["trial"], event["rungs"])
    for trial in ledger.suspects:
        for number in ledger.lineage(trial.number):
            recorded.forget(number)
    first = {trial.number: [*ledger.lineage(trial.number)][-1] for trial in ledger}  # of each configuration's trials
    by_level = {
        level: {first[number]: value for number, value in values.items()}
        for level, values in sorted(recorded.values.items())
        if values
    }
    ended = {first[trial.number]: trial.best for trial in ledger if trial.end == "completed" and trial.best}
    levels, rows = list(by_level), []
    for place, (level, values) in enumerate(by_level.items()):
        if all(ledger.trials[number].whole == level for number in recorded.values[level]):
            continue  # whole trainings, of whom nobody is promoted any further
        done = [number for number in values if number in ended]
        final = [recorded.value(ended[number]["metrics"]) for number in done]
        early = [values[number] for number in done]
        reached_next = by_level[levels[place + 1]] if place + 1 < len(levels) else {}
        went_on = sum(number in reached_next or number in ended for number in values)
        both = [number for number in values if number in reached_next]
        with_next = _correlation([values[number] for number in both], [reached_next[number] for number in both])
        rows.append(RungRow(level, len(values), went_on, _correlation(early, final), len(done), with_next))
    return rows


def trust(rows: Sequence[RungRow]) -> str:
    """Whether early stopping could be trusted, in a sentence."""
    known = [row for row in rows if row.correlation is not None]
    if not known:
        return "Too few trials completed to say whether early ranks foretold the end."
    first = known[0]
    assert first.correlation is not None
    if first.correlation >= _TRUSTED:
        judgement = "so what was stopped there was mostly what would have lost"
    elif first.correlation > 0:
        judgement = "so some of what was stopped there may have won: give trials a later first rung to be surer"
    else:
        judgement = "so early ranks said nothing of the end: do not trust what was stopped"
    return (
        f"Among the {first.compared} trials that completed, ranks at the first rung and at the end correlate at "
        f"{first.correlation:.2f} (Spearman), {judgement}. Stopped trials have no end to compare with."
    )


def _correlation(early: Sequence[float], final: Sequence[float]) -> float | None:
    if len(early) < _FEWEST or len(set(early)) == 1 or len(set(final)) == 1:
        return None
    if not np.isfinite([*early, *final]).all():
        return None
    return float(spearmanr(early, final).statistic)
