"""A real study that takes seconds, and trials told by hand where nothing needs to be trained. Not a test by itself."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.domains import Choice, LogUniform
from sweep.objective import Maximize
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import Search, opened
from sweep.orchestration.worker import Assignment
from sweep.search_space import OneOf, SearchSpace
from sweep.study import Budget, Study
from sweep.tracking import journal
from sweep.tracking.ledger import TrialRecord

METRIC = "validation/pgd_2/adversarial_accuracy"
MEASURED = ("seconds", "validation/seconds", "peak_memory_mb")  # what differs from run to run

if "SWEEP_CACHE_DIR" not in os.environ:  # of this process and those it starts, so that digits are decoded once
    _CACHE = tempfile.TemporaryDirectory(prefix="sweep-tests-")
    os.environ["SWEEP_CACHE_DIR"] = _CACHE.name
    atexit.register(_CACHE.cleanup)


def tiny(**changes: Any) -> Study:
    """Two hundred digits, a small network, three epochs: a trial takes about half a second."""
    space = {
        "dataset": {"name": "digits", "train_size": 200, "validation_size": 100},
        "model": {"name": "small_cnn", "width": 4},
        "threat_model": {"name": "linf", "epsilon": 0.05},
        "epochs": 3,
        "batch_size": 50,
        "optimizer": {"name": "sgd", "learning_rate": LogUniform(1e-3, 0.3)},
        "defense": OneOf(
            standard={}, adversarial_training={"epsilon": 0.05, "attack": {"name": "pgd", "num_steps": Choice(1, 2)}}
        ),
    }
    settings: dict[str, Any] = {
        "name": "tiny",
        "space": SearchSpace(**{**space, **changes.pop("space", {})}),
        "search_attack": {"name": "pgd", "num_steps": 2},
        "objective": Maximize(METRIC),
        "sampler": "random",
        "budget": Budget(trials=4),
        "concurrency": 1,
    }
    return Study(**{**settings, **changes})


def record(number: int, asked: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> TrialRecord:
    """A trial that runs, from what the sampler proposed."""
    config, params, attributes = asked
    return TrialRecord(number, config, params, "sampler", attributes)


def ended(trial: TrialRecord, end: str, reports: dict[int, dict[str, float]]) -> TrialRecord:
    """The trial at its end, having reported this by epoch; its last epoch counts."""
    trial.end = end  # type: ignore[assignment]  # one of the ends, as the journal holds them
    trial.reports = {**reports}
    if reports:
        trial.best = {"epoch": max(reports), "metrics": reports[max(reports)]}
    return trial


def events(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    """The journal's events of these kinds, or all of them."""
    path = folder / journal.FILE_NAME
    if not path.exists():
        return []
    return [event for event, _ in journal.read(path) if not kinds or event["event"] in kinds]


def figures(folder: Path) -> dict[int, Any]:
    """By trial: its end, its reports and its final figures, without what is measured by a clock."""
    told: dict[int, Any] = {}
    for event in events(folder, "asked", "reported", "ended"):
        found = told.setdefault(event["trial"], {"reports": {}})
        if event["event"] == "asked":
            found["config"], found["params"] = event["config"], event["params"]
        elif event["event"] == "reported":
            found["reports"][event["epoch"]] = _lasting(event["metrics"])
        else:
            found |= {"end": event["end"], "final": _lasting(event["final"] or {})}
            found["best"] = event["best"] and {**event["best"], "metrics": _lasting(event["best"]["metrics"])}
    return told


def _lasting(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in MEASURED}


@contextmanager
def searching(root: Path, study: Study | None = None) -> Iterator[Search]:
    """The study, begun or resumed."""
    exists = (root / (study or tiny()).name / "study.json").exists()
    folder = StudyFolder.find(root, (study or tiny()).name) if exists else StudyFolder.create(root, study or tiny())
    with opened(folder) as search:
        yield search


def asked(search: Search) -> Assignment:
    assignment = search.ask()
    assert assignment is not None
    return assignment


def report(search: Search, number: int, epoch: int, value: float, cost: float = 100.0) -> bool:
    """What a worker would say after an epoch."""
    metrics = {METRIC: value, "validation/clean_accuracy": max(value, 0.9), "gradient_evaluations": cost * epoch}
    return search.hear({"trial": number, "epoch": epoch, "metrics": metrics})


def finish(search: Search, number: int, end: str = "completed") -> bool:
    return search.hear({"trial": number, "end": end, "final": {"f": 0.5}, "error": None})


def complete(search: Search, *values: float) -> int:
    """A trial from beginning to end."""
    number = asked(search).number
    search.started(number, "here", 1)
    for epoch, value in enumerate(values, start=1):
        if not report(search, number, epoch, value):
            return number
    finish(search, number)
    return number


def told(folder: Path) -> list[tuple[Any, ...]]:
    return [(event["event"], event.get("trial")) for event in events(folder)]


def cut(folder: Path, events_left: int) -> None:
    """The journal as it would be, had the sweep been killed after so many events."""
    lines = (folder / "journal.log").read_bytes().splitlines(keepends=True)
    (folder / "journal.log").write_bytes(b"".join(lines[:events_left]))
