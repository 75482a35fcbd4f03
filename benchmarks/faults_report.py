"""What kills left behind: the journal, Optuna, the rungs and MLflow's database, compared. For `faults.py`."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.tracking.contents import contents
from sweep.tracking.journal import read


def report(path: Path, database: Path, snapshots: list[bytes]) -> int:
    """Print what was found; returns how much of it should not be. `snapshots` are the journal as it was before."""
    folder = StudyFolder(path)
    story = list(events(folder.path))
    whole = folder.journal.read_bytes()
    asked = Counter(event["trial"] for event in story if event["event"] == "asked")
    ended = Counter(event["trial"] for event in story if event["event"] == "ended")
    reported = Counter((event["trial"], event["epoch"]) for event in story if event["event"] == "reported")
    ends = Counter(event["end"] for event in story if event["event"] == "ended")
    missing, doubled, stray = compare_mlflow(database, story)
    figures = {
        "journals that lost a line": sum(not whole.startswith(before) for before in snapshots),
        "trials lost": len(asked) - len(ended),
        "trials failed": ends["failed"],
        "trials run twice": _excess(asked) + _excess(ended) + _excess(reported) + begun_after_their_end(story),
        "metrics missing in MLflow": missing,
        "metrics doubled in MLflow": doubled,
        "runs of nobody in MLflow": stray,
        "rungs differing from the journal": differing_rungs(folder, story),
    }
    print(f"{len(asked)} trials ({listed(ends)}), {len(reported)} reports, {len(story)} events, {len(whole):,} bytes")
    print(f"{sum(event['event'] == 'session' for event in story)} sessions")
    for name, count in figures.items():
        print(f"{name:<34}{count:>4}")
    return sum(figures.values())


def compare_mlflow(database: Path, story: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Metrics that are not there, metrics that are there more than once, and runs that nothing accounts for."""
    with sqlite3.connect(database) as connection:
        tags = connection.execute("SELECT run_uuid, value FROM tags WHERE key = 'sweep.trial'").fetchall()
        rows = Counter(connection.execute("SELECT run_uuid, key, step FROM metrics").fetchall())
        runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
    run_of = {int(trial): run for run, trial in tags}
    of_trials = [event for event in story if "trial" in event]
    wanted = [
        (run_of.get(event["trial"]), point.name, point.step)
        for event in of_trials
        for point in contents([event]).points
    ]
    return sum(not rows[key] for key in wanted), _excess(rows), runs - len(run_of) - 1


def begun_after_their_end(story: list[dict[str, Any]]) -> int:
    """Trials that a worker took up although they were over."""
    over: set[int] = set()
    found = 0
    for event in story:
        if event["event"] == "ended":
            over.add(event["trial"])
        found += event["event"] == "started" and event["trial"] in over
    return found


def differing_rungs(folder: StudyFolder, story: list[dict[str, Any]]) -> int:
    """Values at a rung that a search opened now holds otherwise than the journal's reports tell them."""
    with opened(folder) as search:
        assert search.rungs is not None
        held = {(level, trial): value for level, row in search.rungs.values.items() for trial, value in row.items()}
        told, best = {}, dict[int, float]()
        for event in story:
            if event["event"] == "reported":
                value = search.rungs.value(event["metrics"])
                best[event["trial"]] = max(value, best.get(event["trial"], value))
                for level in (2 * 3**k for k in range(5)):
                    if event["epoch"] >= level:
                        told.setdefault((level, event["trial"]), best[event["trial"]])
    return sum(held.get(key) != told.get(key) for key in held.keys() | told.keys())


def listed(counts: Counter[str]) -> str:
    """The counts, largest first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """The journal's events as it stands."""
    if (folder / "journal.log").exists():
        yield from (event for event, _ in read(folder / "journal.log"))


def _excess(counts: Counter[Any]) -> int:
    return sum(count - 1 for count in counts.values())
