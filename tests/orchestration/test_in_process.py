"""Whole sweeps of real trials in this process; and processes that are killed, whose sweeps lose and double nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from processes import killed, paused, pausing
from tiny_study import METRIC, events, figures, tiny

from sweep.domains import Choice
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.registry import validated
from sweep.study import Asha, Budget, Study
from sweep.trial import Trial

BREAKING = {"name": "sgd", "learning_rate": 10.0, "weight_decay": 1.0}
TOO_BIG = {"name": "lenet5", "variant": "lecun1998"}  # for images of 8x8


def swept(root: Path, study: Study) -> Path:
    """The study, run to its end; its folder."""
    folder = StudyFolder.create(root, study)
    with opened(folder) as search:
        in_process.run(search)
    return folder.path


def test_a_sweep_from_beginning_to_end(tmp_path: Path) -> None:
    study = tiny(
        space={"optimizer": {"name": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4}, "batch_size": Choice(20, 50)},
        enqueue=[{"model": TOO_BIG}, {"optimizer": BREAKING, "batch_size": 20, "defense": "standard"}],
        budget=Budget(trials=4),
    )
    folder = swept(tmp_path, study)
    failed, diverged, *completed = figures(folder).values()
    assert failed["end"] == "failed" and failed["reports"] == {}
    assert diverged["end"] == "diverged" and set(diverged["reports"]) <= {1, 2}
    for trial in completed:
        assert trial["end"] == "completed" and list(trial["reports"]) == [1, 2, 3]
        assert trial["best"]["metrics"][METRIC] == max(metrics[METRIC] for metrics in trial["reports"].values())
        assert 0 <= trial["final"]["validation/worst_case/adversarial_accuracy"] <= trial["best"]["metrics"][METRIC]
    error = events(folder, "ended")[0]["error"]
    assert error["class"] == "ConfigurationError" and "12x12" in error["message"]
    ranked = StudyFolder(folder).ledger().ranked(study.objective[0])
    assert {trial.number for trial in ranked} == {2, 3}
    assert [event["trial"] for event in events(folder, "asked")] == [0, 1, 2, 3]
    kinds = [event["event"] for event in events(folder) if event.get("trial") == 2]
    assert kinds == ["asked", "started", "reported", "reported", "reported", "ended"]
    assert events(folder, "closed")[0]["reason"] == "finished"


def test_a_trials_figures_are_those_of_the_same_configuration_run_alone(tmp_path: Path) -> None:
    from sweep.configuration import TrialConfig

    folder = swept(tmp_path, tiny(budget=Budget(trials=1)))
    (told,) = figures(folder).values()
    alone = Trial(validated(TrialConfig, told["config"], "trial"))
    results = {result.epoch: result.metrics for result in alone.run()}
    for epoch, metrics in told["reports"].items():
        assert metrics.items() <= results[epoch].items()
    assert told["final"] == alone.finish()


def test_early_stopping_and_two_budgets_in_a_real_sweep(tmp_path: Path) -> None:
    study = tiny(
        space={"defense": "standard"},
        early_stopping=Asha(resource="gradient_evaluations", grace_period=200, reduction_factor=2),
        budget=Budget(trials=50, gradient_evaluations=3000),
    )
    folder = swept(tmp_path, study)
    ledger = StudyFolder(folder).ledger()
    assert ledger.counts()["stopped"] >= 1 and ledger.counts()["completed"] >= 1
    assert ledger.counts()["running"] == 0
    assert 3000 <= ledger.gradient_evaluations < 3600  # 200 images, 3 epochs: a trial is 600 at most
    for trial in ledger:
        assert (trial.end == "stopped") == (trial.epoch < 3)
    assert not (folder / "trials" / "0000" / "error.txt").exists()


RUN = """
import sys
from pathlib import Path
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened

with opened(StudyFolder(Path(sys.argv[1]))) as search:
    in_process.run(search)
"""


def killed_at(folder: Path, event: str, trial: int) -> None:
    """Run the study in a process of its own, and kill it where its journal says this of a trial."""
    moment = f"(told[-1]['event'], told[-1].get('trial')) == ({event!r}, {trial})"
    process = subprocess.Popen([*pausing(moment, RUN), str(folder)], stdout=subprocess.DEVNULL)
    try:
        paused(process)
    finally:
        killed(process)


def check_that_nothing_is_doubled(folder: Path, trials: int) -> None:
    assert sorted(event["trial"] for event in events(folder, "asked")) == list(range(trials))
    assert sorted(event["trial"] for event in events(folder, "ended")) == list(range(trials))
    reported = [(event["trial"], event["epoch"]) for event in events(folder, "reported")]
    assert len(reported) == len(set(reported))


@pytest.mark.slow
def test_killed_again_and_again_a_sweep_ends_with_the_figures_of_an_unbroken_one(tmp_path: Path) -> None:
    study = tiny(budget=Budget(trials=6), early_stopping=Asha(grace_period=1, reduction_factor=2))
    unbroken = swept(tmp_path / "unbroken", study)
    folder = StudyFolder.create(tmp_path / "broken", study).path
    killed_at(folder, "asked", 0)
    killed_at(folder, "reported", 1)
    killed_at(folder, "ended", 3)
    over = {event["trial"]: event["time"] for event in events(folder, "ended")}
    # The last session says what it found, and goes on to the end.
    said: list[str] = []
    with opened(StudyFolder(folder), say=said.append) as search:
        assert search.restored["completed"] + search.restored["stopped"] == len(over)
        in_process.run(search)
    assert any("took over the lock of process" in text for text in said)
    check_that_nothing_is_doubled(folder, 6)
    assert figures(folder) == figures(unbroken)
    for event in events(folder, "started"):
        assert event["time"] < over.get(event["trial"], float("inf"))  # nothing that was over began again
    first_attempts = [event["trial"] for event in events(folder, "started") if event["attempt"] == 1]
    assert sorted(first_attempts) == list(range(6))
    assert [event["session"] for event in events(folder, "session")] == [1, 2, 3, 4]
    assert len(events(folder, "closed")) == 1  # the killed ones closed nothing


def test_ctrl_c_ends_in_order_and_the_sweep_goes_on(tmp_path: Path) -> None:
    study = tiny(budget=Budget(trials=2))
    folder = StudyFolder.create(tmp_path / "broken", study)

    def interrupt(event: Any) -> None:
        if event["event"] == "reported":
            os.kill(os.getpid(), signal.SIGINT)

    with opened(folder, interrupt) as search:
        in_process.run(search)
    assert search.interrupted
    assert [event["event"] for event in events(folder.path)] == ["session", "asked", "started", "reported", "closed"]
    assert events(folder.path)[-1]["reason"] == "interrupted"
    with opened(folder) as search:
        in_process.run(search)
    check_that_nothing_is_doubled(folder.path, 2)
    assert figures(folder.path) == figures(swept(tmp_path / "unbroken", study))
