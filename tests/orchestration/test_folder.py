"""The study folder: whole before anything runs, one owner at a time, refused where it is another's or was changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny

from sweep.errors import ConfigurationError, StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.provenance import versions
from sweep.study import Budget
from sweep.tracking.journal import Journal

HOLD = """
import sys, time
from pathlib import Path
from sweep.orchestration.folder import StudyFolder
with StudyFolder(Path(sys.argv[1])).owned():
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def another_owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A second process that holds the folder."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None and owner.stdout.readline() == "held\n"
            yield owner
        finally:
            owner.kill()


def test_it_is_whole_before_anything_runs(tmp_path: Path) -> None:
    study = tiny()
    folder = StudyFolder.create(tmp_path, study)
    record = folder.record()
    assert folder.path == tmp_path / "tiny"
    assert record["fingerprint"] == study.fingerprint
    assert record["study"] == study.to_json()
    assert record["versions"].keys() >= {"python", "torch", "optuna"} and record["versions"] == versions()
    assert folder.study().fingerprint == study.fingerprint
    assert folder.ledger().trials == {}
    assert StudyFolder.find(tmp_path, "tiny").path == folder.path
    assert StudyFolder.find(tmp_path / "elsewhere", str(folder.path)).path == folder.path


def test_of_two_that_begin_the_same_study_at_once_the_second_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    with (
        another_owner(tmp_path / "tiny") as quicker,
        pytest.raises(StudyError, match=f"is being run by process {quicker.pid}"),
    ):
        StudyFolder.create(tmp_path, tiny())
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["lock"]


def test_one_that_was_killed_before_there_was_a_study_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    left = Journal(tmp_path / "tiny" / "journal.log")
    left.append("inherited", trials=[])
    left.close()
    folder = StudyFolder.create(tmp_path, tiny())
    assert folder.study().name == "tiny" and not folder.journal.exists()


def test_a_study_that_another_version_of_sweep_wrote_says_which(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    record = folder.record() | {"commit": "0123456789ab", "fingerprint": "another"}
    (folder.path / "study.json").write_text(json.dumps(record))
    with pytest.raises(
        StudyError, match=r"was changed: .*or go on with the sweep that wrote it \(commit 0123456789ab;"
    ):
        folder.study()


def test_a_folder_in_use_is_refused_with_the_remedy(tmp_path: Path) -> None:
    StudyFolder.create(tmp_path, tiny())
    with pytest.raises(StudyError, match=r"holds this very study: `sweep resume tiny` goes on with it; .*another name"):
        StudyFolder.create(tmp_path, tiny())
    with pytest.raises(StudyError, match="holds another study"):
        StudyFolder.create(tmp_path, tiny(seed=5))


def test_a_journal_without_its_study_is_refused(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    with closing(Journal(folder.journal)) as journal:
        journal.append("session", session=1)
    (folder.path / "study.json").unlink()
    with pytest.raises(StudyError, match=r"a journal but no study.json"):
        StudyFolder.create(tmp_path, tiny(seed=5))


def test_a_study_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    StudyFolder.create(tmp_path, tiny())
    with pytest.raises(StudyError, match=r"unknown study 'tinny'; did you mean 'tiny'?"):
        StudyFolder.find(tmp_path, "tinny")


def edited(folder: StudyFolder, **changes: Any) -> None:
    record = folder.record()
    record["study"] |= changes
    (folder.path / "study.json").write_text(json.dumps(record))


def test_a_changed_study_is_refused_and_an_extended_budget_is_not(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    edited(folder, budget=Budget(trials=400).model_dump())
    assert folder.study().budget.trials == 400
    edited(folder, seed=1)
    with pytest.raises(StudyError, match=r"study.json was changed: .*fingerprint"):
        folder.study()


def test_the_budget_is_extended_with_its_history(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny(budget=Budget(trials=4, hours=0.5)))
    before, after = folder.extend(trials=3, hours=1.5, gradient_evaluations=None)
    assert (before, after) == (Budget(trials=4, hours=0.5), Budget(trials=7, hours=2.0))
    folder.extend(trials=1)
    assert folder.study().budget == Budget(trials=8, hours=2.0)
    assert [(past["trials"], past["hours"]) for past in folder.record()["budgets"]] == [(4, 0.5), (7, 2.0)]
    assert folder.record()["fingerprint"] == tiny().fingerprint


def test_a_budget_that_cannot_be_extended_is_left_alone(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    before = (folder.path / "study.json").read_bytes()
    with pytest.raises(StudyError, match="sets no limit of gradient evaluations to add to"):
        folder.extend(gradient_evaluations=10)
    with pytest.raises(ConfigurationError, match=r"trials: .*less than or equal to 1000000"):
        folder.extend(trials=1_000_000)
    with folder.owned(), pytest.raises(StudyError, match="is being run by process"):
        folder.extend(trials=1)
    assert (folder.path / "study.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"study": {}}', "\x00"])
def test_a_damaged_study_is_refused(text: str, tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    (folder.path / "study.json").write_text(text)
    with pytest.raises(StudyError, match=r"study.json cannot be read .*; restore it from a copy"):
        folder.study()


def test_one_owner_at_a_time_and_a_dead_ones_lock_is_taken_over(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    with another_owner(folder.path) as owner:
        with pytest.raises(StudyError, match=f"is being run by process {owner.pid} on .*; wait for it or stop it"):
            folder.owned().__enter__()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        with folder.owned() as taken_over:
            assert taken_over is not None and f"process {owner.pid}" in taken_over and "which is gone" in taken_over
            assert json.loads((folder.path / "lock").read_text())["pid"] == os.getpid()
    with folder.owned() as taken_over:
        assert taken_over is None


def test_an_owner_in_the_same_process_counts_too(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    with folder.owned(), pytest.raises(StudyError, match=f"process {os.getpid()}"):
        folder.owned().__enter__()


def test_an_owner_that_failed_has_let_go(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    with pytest.raises(ZeroDivisionError), folder.owned():
        _ = 1 // 0
    with folder.owned() as taken_over:
        assert taken_over is None
