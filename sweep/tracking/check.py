"""What MLflow holds of a study, against the journal: nothing may be missing, and nothing there twice.

Each event of the journal is read again when the run that it belongs to is looked at, so a long study takes no more
memory than a short one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.tracking.contents import Contents, Point, contents, milliseconds, run_of
from sweep.tracking.home import address_of
from sweep.tracking.journal import FILE_NAME, read
from sweep.tracking.mirror import mirrored
from sweep.tracking.models import runs_with_model
from sweep.tracking.store import (
    MOST_POINTS,
    client_of,
    experiment_of,
    explaining,
    history,
    identity,
    number_of,
    runs_of,
)

_RUNS_AT_ONCE = 100


@dataclass
class Check:
    """Counts. `differing` are runs whose status, parameters or tags are not the journal's."""

    runs: int = 0
    metrics: int = 0
    runs_missing: int = 0
    runs_doubled: int = 0
    runs_deleted: int = 0  # by hand, in MLflow: their metrics are not looked for
    metrics_missing: int = 0
    metrics_doubled: int = 0
    differing: int = 0
    models_missing: int = 0

    @property
    def is_faithful(self) -> bool:
        runs = (self.runs_missing, self.runs_doubled, self.differing, self.models_missing)
        return not any((*runs, self.metrics_missing, self.metrics_doubled))


def check(folder: Path, tracking_uri: str, study: str, *, confirms: bool = False) -> Check:
    """Compare every run and every metric that MLflow has acknowledged, or all of the journal's, with what it holds;
    where the study `confirms`, also whether each completed trial has its model there.

    What a running sweep writes and sends meanwhile does not count, though its run may seem to differ; nor do metrics of
    names that the journal does not give, which are somebody else's. Raises StudyError where MLflow does not answer.
    """
    with explaining(tracking_uri, "MLflow holds what was sent, and the count against the journal is not finished"):
        return _checked(folder, tracking_uri, study, confirms)


def _checked(folder: Path, tracking_uri: str, study: str, confirms: bool) -> Check:
    acknowledged = mirrored(folder)[1].get(address_of(folder, tracking_uri))
    offsets, now = _offsets(folder / FILE_NAME, acknowledged)
    client = client_of(tracking_uri)
    experiment = experiment_of(client, study)
    result, seen, deleted = Check(), Counter[int | None](), set[int | None]()
    modelled = runs_with_model(client, experiment.experiment_id) if experiment and confirms else set()
    pages = runs_of(client, experiment.experiment_id, identity(folder), _RUNS_AT_ONCE) if experiment else ()
    for page in pages:
        runs = [run for run in page if run.info.lifecycle_stage == "active"]
        seen.update(number_of(run) for run in runs)
        deleted.update(number_of(run) for run in page if run not in runs)
        wanted = {run.info.run_id: _wanted(folder, offsets.get(number_of(run), ())) for run in runs}
        result.differing += sum(_differs(run, wanted[run.info.run_id]) for run in runs)
        held = _held(client, runs, wanted, now)
        for run, expected in wanted.items():
            result.models_missing += confirms and expected.tags.get("end") == "completed" and run not in modelled
            points = set(expected.points)
            result.metrics += len(held[run])
            result.metrics_missing += len(points.difference(held[run]))
            result.metrics_doubled += len(held[run]) - len(points.intersection(held[run]))
    result.runs, result.runs_doubled = seen.total(), seen.total() - len(seen)
    result.runs_deleted = len(deleted - seen.keys())
    for number in offsets.keys() - seen.keys() - deleted:
        missing = _wanted(folder, offsets[number])
        result.runs_missing += missing != Contents()
        result.metrics_missing += len(missing.points)
    return result


def _offsets(journal: Path, end: int | None) -> tuple[dict[int | None, list[int]], int]:
    """Where each run's events begin in the journal, up to byte `end`; and the time of the last, in milliseconds."""
    found: dict[int | None, list[int]] = {}
    begin = now = 0
    for event, after in read(journal):
        if end is not None and after > end:
            break
        found.setdefault(run_of(event), []).append(begin)
        begin, now = after, max(now, milliseconds(event))
    return found, now


def _wanted(folder: Path, offsets: Iterable[int]) -> Contents:
    return contents(next(read(folder / FILE_NAME, offset=offset))[0] for offset in offsets)


def _held(client: Any, runs: Sequence[Any], wanted: Mapping[str, Contents], now: int) -> dict[str, list[Point]]:
    """Every value until `now` of every metric that is wanted, by run."""
    held: dict[str, list[Point]] = {run.info.run_id: [] for run in runs}
    names = {point.name for expected in wanted.values() for point in expected.points}
    longest = max((n for expected in wanted.values() for n in _lengths(expected).values()), default=1)
    at_once = max(1, MOST_POINTS // (2 * longest))  # twice, because of the doubled ones that are looked for
    for name in sorted(names):
        for first in range(0, len(runs), at_once):
            for run, point in history(client, [run.info.run_id for run in runs[first : first + at_once]], name):
                if point.time <= now:
                    held[run].append(point)
    return held


def _lengths(expected: Contents) -> Counter[str]:
    return Counter(point.name for point in expected.points)


def _differs(run: Any, wanted: Contents) -> bool:
    is_status_right = wanted.status is None or run.info.status == wanted.status
    return not (
        is_status_right
        and wanted.params.items() <= run.data.params.items()
        and wanted.tags.items() <= run.data.tags.items()
    )
