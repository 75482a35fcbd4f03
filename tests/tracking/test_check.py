"""The check of MLflow against the journal sees whatever is missing or doubled there, and `sweep sync` mends it."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mirrored_study import Shown, Sweep

from sweep.errors import StudyError
from sweep.tracking.address import local_uri
from sweep.tracking.check import Check, check
from sweep.tracking.mlflow import Mirror

mlflow: Any = pytest.importorskip("mlflow")
# MLflow 3.17 with SQLAlchemy 2.1: "the noload loader strategy is deprecated"
pytestmark = pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")

FAITHFUL = Check(runs=3, metrics=16)  # a parent and two trials: three reports of two metrics, one best, one final


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that MLflow shows."""
    folder = tmp_path_factory.mktemp("mirrored") / "digits"
    folder.mkdir()
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(0)
    sweep.whole(1)
    sweep.closed()
    Mirror(folder, local_uri(folder), "digits").sync()
    return folder


@pytest.fixture
def folder(mirrored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mirrored, tmp_path / "digits"))


def checked(folder: Path) -> Check:
    return check(folder, local_uri(folder), "digits")


DAMAGE = {
    "delete from metrics where rowid = (select max(rowid) from metrics)": Check(3, 15, metrics_missing=1),
    "delete from metrics": Check(3, 0, metrics_missing=16),
    "insert into metrics select key, value, timestamp - 1, run_uuid, step, is_nan from metrics limit 2": Check(
        3, 18, metrics_doubled=2
    ),
    "update metrics set value = 0.123 where step = 2 and key = 'validation/clean_accuracy'": Check(
        3, 16, metrics_missing=2, metrics_doubled=2
    ),
    "update params set value = '8' where key = 'seed' and rowid = (select max(rowid) from params where key = 'seed')": (
        Check(3, 16, differing=1)
    ),
    "update tags set value = 'failed' where key = 'end'": Check(3, 16, differing=2),
    "update runs set status = 'RUNNING' where name like 'trial %'": Check(3, 16, differing=2),
    "delete from tags where key = 'sweep.journal'": Check(runs_missing=3, metrics_missing=16),
}


def test_what_is_as_the_journal_says_is_faithful(folder: Path) -> None:
    assert checked(folder) == FAITHFUL
    assert FAITHFUL.is_faithful


@pytest.mark.parametrize("statement", DAMAGE)
def test_whatever_is_missing_doubled_or_changed_is_counted(statement: str, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute(statement)
    found = checked(folder)
    assert found == DAMAGE[statement]
    assert not found.is_faithful


def test_metrics_of_other_names_are_somebody_elses(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"update {table} set key = 'an older name' where key like 'best/%'")
    Mirror(folder, local_uri(folder), "digits").sync(again=True)
    assert checked(folder) == FAITHFUL


def test_a_server_that_does_not_answer_in_time_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as server:  # which takes connections and says nothing
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StudyError, match=r"not finished: .* cannot be reached: .*timed out") as refused:
            check(folder, uri, "digits")
    assert "\n" not in str(refused.value)


def test_what_is_missing_comes_back_when_everything_is_sent_again(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("delete from metrics")
        database.execute("update runs set status = 'RUNNING'")
        database.execute("update tags set value = '?' where key = 'end'")
    assert Mirror(folder, local_uri(folder), "digits").sync() == 0
    assert Mirror(folder, local_uri(folder), "digits").sync(again=True) == 14
    assert checked(folder) == FAITHFUL


def test_a_run_made_twice_is_seen_and_the_emptier_one_removed(folder: Path) -> None:
    shown = Shown(local_uri(folder))
    trial = shown.children[1]
    tags = {
        name: trial.data.tags[name] for name in ("sweep.study", "sweep.journal", "sweep.trial", "mlflow.parentRunId")
    }
    twin = shown.client.create_run(shown.experiment.experiment_id, tags=tags)
    assert checked(folder) == Check(4, 16, runs_doubled=1, metrics_missing=8, differing=1)
    Mirror(folder, local_uri(folder), "digits").sync(again=True)
    assert checked(folder) == FAITHFUL
    assert shown.client.get_run(twin.info.run_id).info.lifecycle_stage == "deleted"
    assert Shown(local_uri(folder)).children[1].info.run_id == trial.info.run_id


def test_what_was_deleted_by_hand_stays_deleted(folder: Path) -> None:
    shown = Shown(local_uri(folder))
    shown.client.delete_run(shown.children[0].info.run_id)
    found = checked(folder)
    assert found == Check(2, 8, runs_deleted=1)
    assert found.is_faithful


def test_another_store_that_holds_nothing_lacks_everything(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(folder / "mlflow.db", tmp_path / "other" / "mlflow.db")
    assert check(folder, local_uri(tmp_path / "other"), "another study") == Check(runs_missing=3, metrics_missing=16)


def test_what_a_running_sweep_does_meanwhile_is_not_held_against_mlflow(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.reported(1, 3)
    assert checked(folder) == FAITHFUL
    sweep.journal.close()
