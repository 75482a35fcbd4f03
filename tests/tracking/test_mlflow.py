"""MLflow shows what the journal says, once, whatever was sent twice and however long MLflow was away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mirrored_study import ADVERSARIAL, CLEAN, PATIENCE, Shown, Sweep, free_port, until

from sweep.errors import SweepError
from sweep.tracking.address import local_uri, redacted
from sweep.tracking.journal import FILE_NAME, Journal
from sweep.tracking.mirror import STATE
from sweep.tracking.mlflow import Mirror
from sweep.tracking.store import explained

mlflow: Any = pytest.importorskip("mlflow")
# MLflow 3.17 with SQLAlchemy 2.1: "the noload loader strategy is deprecated"
pytestmark = pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def folder(tmp_path: Path, empty_database: Path) -> Path:
    study = tmp_path / "a study #1"
    study.mkdir()
    shutil.copy(empty_database, study / "mlflow.db")
    (study / "study.json").write_text('{"name": "digits"}')
    return study


def test_a_study_is_an_experiment_with_a_parent_and_its_trials(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(7)
    assert Mirror(folder, local_uri(folder), "digits").sync() == 7
    shown = Shown(local_uri(folder))
    (parent,) = shown.parents
    assert parent.info.run_name == "sweep digits"
    assert parent.info.status == "RUNNING"
    assert {"version.torch": "2.13", "host": "node-1", "sweep.study": "digits"}.items() <= parent.data.tags.items()
    artifact = folder / "mlartifacts" / parent.info.run_id / "artifacts" / "study.json"
    assert artifact.read_text() == '{"name": "digits"}'
    child = shown.children[7]
    assert child.info.run_name == "trial 0007 hybrid"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    wanted = {
        "defense": "hybrid",
        "origin": "sampler",
        "end": "completed",
        "node": "node-2",
        "attempt": "1",
        "validity": "unchecked",
    }
    assert wanted.items() <= child.data.tags.items()
    sweep.closed()
    Mirror(folder, local_uri(folder), "digits").sync()
    assert Shown(local_uri(folder)).parents[0].info.status == "FINISHED"
    sweep.journal.close()


def test_a_trial_shows_its_configuration_and_every_report(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(0)
    Mirror(folder, local_uri(folder), "digits").sync()
    shown = Shown(local_uri(folder))
    assert shown.children[0].data.params == {
        "seed": "7",
        "defense.name": "hybrid",
        "defense.epsilon": "0.1",
        "defense.attack.name": "pgd",
        "defense.attack.num_steps": "7",
        "defense.attack.random_start": "true",
        "widths": "[16, 32]",
        "note": "x" * 499 + "…",
    }
    assert shown.history(0, ADVERSARIAL) == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert shown.history(0, CLEAN) == [(0, 0.9), (1, 0.9), (2, 0.9)]
    assert shown.history(0, f"best/{ADVERSARIAL}") == [(2, 0.2)]
    assert shown.history(0, f"final/{ADVERSARIAL}") == [(0, 0.15)]
    reports = [json.loads(line[9:]) for line in (folder / FILE_NAME).read_bytes().splitlines()]
    times = [round(1000 * event["time"]) for event in reports if event["event"] == "reported"]
    history = shown.client.get_metric_history(shown.children[0].info.run_id, CLEAN)
    assert sorted(point.timestamp for point in history) == times
    assert shown.children[0].info.end_time == round(1000 * reports[-1]["time"])


def test_what_the_validity_checks_found_can_be_filtered_by(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    sweep.asked(0)
    figures = {"V4": 0.98, "V9": 0.04, "V12": 0.0}
    sweep.ended(0, validity={"verdict": "suspect", "suspect": ["V4", "V12"], "investigate": ["V9"], "figures": figures})
    Mirror(folder, local_uri(folder), "digits").sync()
    child = Shown(local_uri(folder)).children[0]
    tags = {"validity": "suspect", "validity.suspect": "V4, V12", "validity.investigate": "V9"}
    assert tags.items() <= child.data.tags.items()
    assert child.data.tags["validity.figures"] == "V4 0.98, V9 0.04, V12 0"
    assert not [name for name in child.data.metrics if name.startswith("validity")], "few columns"


def test_a_trials_end_is_its_runs_status(folder: Path) -> None:
    ends = {
        "completed": "FINISHED",
        "stopped": "FINISHED",
        "diverged": "FAILED",
        "failed": "FAILED",
        "timed_out": "KILLED",
    }
    sweep = Sweep(folder)
    sweep.session()
    for trial, end in enumerate(ends):
        sweep.asked(trial)
        sweep.ended(trial, end, {"class": "OSError", "message": "m" * 9000} if end == "failed" else None)
    Mirror(folder, local_uri(folder), "digits").sync()
    children = Shown(local_uri(folder)).children
    assert {run.data.tags["end"]: run.info.status for run in children.values()} == ends
    errors = [
        (run.data.tags.get("error.class"), len(run.data.tags.get("error.message", ""))) for run in children.values()
    ]
    assert sorted(errors, key=str) == [("OSError", 500), *[(None, 0)] * 4]


def test_sending_again_changes_nothing(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(0)
    sweep.asked(1)
    sweep.reported(1, 0)
    uri = local_uri(folder)
    Mirror(folder, uri, "digits").sync()
    before = Shown(uri).everything()
    for fraction in (0, 1 / 3, 2 / 3):
        lines = (folder / FILE_NAME).read_bytes().splitlines(keepends=True)
        offset = sum(map(len, lines[: int(fraction * len(lines))]))
        (folder / STATE).write_text(json.dumps({"cursors": {uri: offset}, "address": uri}))
        assert Mirror(folder, uri, "digits").sync() > 0
        assert Shown(uri).everything() == before
    (folder / STATE).unlink()
    mirror = Mirror(folder, uri, "digits")
    mirror.sync()
    assert (Shown(uri).everything(), mirror.refused) == (before, 0)


def test_a_resumed_sweep_goes_on_in_the_same_runs(folder: Path) -> None:
    uri = local_uri(folder)
    sweep = Sweep(folder)
    sweep.session()
    sweep.asked(0)
    sweep.reported(0, 0)
    sweep.closed()
    Mirror(folder, uri, "digits").sync()
    sweep.session(2, torch="2.14")
    sweep.reported(0, 1)
    mirror = Mirror(folder, uri, "digits")
    mirror.sync()
    shown = Shown(uri)
    assert shown.history(0, ADVERSARIAL) == [(0, 0.0), (1, 0.1)]
    assert len(shown.parents) == 1
    assert shown.parents[0].info.status == "RUNNING"
    assert (shown.parents[0].data.tags["version.torch"], mirror.refused) == ("2.14", 0)
    sweep.closed("interrupted")
    mirror.sync()
    assert Shown(uri).parents[0].info.status == "RUNNING"


def test_two_sweeps_of_one_name_are_two_parents_in_one_experiment(folder: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    for each in (folder, second):
        sweep = Sweep(each)
        sweep.session()
        sweep.whole(0)
        Mirror(each, local_uri(folder), "digits").sync()
    client = mlflow.MlflowClient(local_uri(folder))
    experiment = client.get_experiment_by_name("digits")
    runs = list(client.search_runs([experiment.experiment_id]))
    assert len(runs) == 4
    assert len({run.data.tags["sweep.journal"] for run in runs}) == 2


def test_a_run_whose_making_was_never_confirmed_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(0)
    mirror = Mirror(folder, local_uri(folder), "digits")
    create = mlflow.MlflowClient.create_run

    def create_and_lose_the_answer(*arguments: Any, **options: Any) -> None:
        create(*arguments, **options)
        raise ConnectionResetError("the answer was lost")

    for _ in ("the parent", "the child"):
        with (
            monkeypatch.context() as patch,
            pytest.raises(SweepError, match="ConnectionResetError: the answer was lost"),
        ):
            patch.setattr(mlflow.MlflowClient, "create_run", create_and_lose_the_answer)
            mirror.sync()
    mirror.sync()
    shown = Shown(local_uri(folder))
    assert (len(shown.parents), list(shown.children)) == (1, [0])
    assert shown.history(0, ADVERSARIAL) == [(0, 0.0), (1, 0.1), (2, 0.2)]


def test_a_confirmation_lies_within_the_search(folder: Path, tmp_path: Path) -> None:
    confirming = tmp_path / "digits-confirmation"
    confirming.mkdir()
    for each, under in ((folder, None), (confirming, folder)):
        sweep = Sweep(each)
        sweep.session()
        sweep.whole(0)
        Mirror(each, local_uri(folder), "digits", under).sync()
    client = mlflow.MlflowClient(local_uri(folder))
    experiment = client.get_experiment_by_name("digits")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    searched, confirmed = found["sweep digits"], found["confirm digits"]
    assert confirmed.data.tags["mlflow.parentRunId"] == searched.info.run_id
    children = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{confirmed.info.run_id}'")
    assert [run.data.tags["sweep.trial"] for run in children] == ["0"]


def test_a_study_that_was_moved_leaves_nothing_where_it_was(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    assert Mirror(folder, local_uri(folder), "digits").sync() == 1
    moved = folder.rename(folder.parent / "moved")
    sweep.session(2)
    sweep.whole(0)
    mirror = Mirror(moved, local_uri(moved), "digits")
    assert mirror.sync() == 7 and not folder.exists()
    assert f"study.json was not copied: its place, {folder / 'mlartifacts'}, is not here" in str(mirror.last_refusal)
    shown = Shown(local_uri(moved))
    assert (len(shown.parents), list(shown.children)) == (1, [0])


@pytest.mark.parametrize("left", ["nothing", "an empty journal"])
def test_a_confirmation_that_was_copied_without_the_search_stands_alone(folder: Path, left: str) -> None:
    under = folder.parent / "elsewhere"
    if left == "an empty journal":
        under.mkdir()
        Journal(under / FILE_NAME).close()
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(0)
    assert Mirror(folder, local_uri(folder), "digits", under).sync() == 7
    shown = Shown(local_uri(folder))
    assert [parent.info.run_name for parent in shown.parents] == ["confirm digits"]
    assert list(shown.children) == [0]


def test_unknown_events_show_nothing(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    sweep.journal.append("rung", trial=3, anything=[1])
    mirror = Mirror(folder, local_uri(folder), "digits")
    assert (mirror.sync(), mirror.refused) == (2, 0)


def test_what_mlflow_will_never_take_does_not_hold_up_the_rest(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    sweep.asked(0)
    sweep.journal.append("reported", trial=0, epoch=0, metrics={"accuracy @ <8/255>": 0.5}, decision="continue")
    sweep.reported(0, 1)
    sweep.asked(1)
    mirror = Mirror(folder, local_uri(folder), "digits")
    assert (mirror.sync(), mirror.refused) == (7, 1)
    assert mirror.last_refusal is not None
    assert mirror.last_refusal.startswith("event 'reported' of trial 0: Invalid value \"accuracy @ <8/255>\"")
    shown = Shown(local_uri(folder))
    assert shown.history(0, ADVERSARIAL) == [(1, 0.1)]
    shown.client.delete_run(shown.children[0].info.run_id)
    sweep.reported(0, 2)
    sweep.reported(1, 0)
    assert (mirror.sync(), mirror.refused) == (2, 2)
    assert "must be in the 'active' state" in mirror.last_refusal
    assert list(Shown(local_uri(folder)).children) == [1]


def test_a_deleted_experiment_is_waited_for(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    mirror = Mirror(folder, local_uri(folder), "digits")
    mirror.sync()
    shown = Shown(local_uri(folder))
    shown.client.delete_experiment(shown.experiment.experiment_id)
    sweep.whole(0)
    with pytest.raises(SweepError, match="'digits' was deleted there: bring it back with"):
        Mirror(folder, local_uri(folder), "digits").sync()
    shown.client.restore_experiment(shown.experiment.experiment_id)
    assert mirror.sync() == 6
    assert list(Shown(local_uri(folder)).children) == [0]


def test_an_unreachable_mlflow_costs_a_sweep_nothing(folder: Path, empty_database: Path) -> None:
    port = free_port()
    mirror = Mirror(folder, f"http://ada:s3cret@127.0.0.1:{port}", "digits")
    mirror.poll_interval = 0.02
    begin = time.monotonic()
    mirror.start()
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(0)
    until(lambda: mirror.last_error is not None)
    assert mirror.stop(timeout=1) == 7
    assert time.monotonic() - begin < PATIENCE  # and not until somebody answers
    address = f"http://***@127.0.0.1:{port}"
    reason = f"{address} cannot be reached: Failed to establish a new connection: [Errno 111] Conn"
    assert mirror.last_error is not None
    assert mirror.last_error.startswith(reason)
    assert Mirror(folder, local_uri(folder), "digits").sync() == 7
    assert Shown(local_uri(folder)).history(0, ADVERSARIAL) == [(0, 0.0), (1, 0.1), (2, 0.2)]


class _WebPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<!doctype html><html><body>" + b"welcome " * 500 + b"</body></html>")

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Refusal(_WebPage):
    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"You are not authenticated.")


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (_WebPage, "answers with a web page: is it the address of an MLflow server?"),
        (_Refusal, "You are not authenticated"),
    ],
)
def test_a_wrong_answer_is_one_plain_sentence(folder: Path, handler: type[_WebPage], says: str) -> None:
    Sweep(folder).session()
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = Mirror(folder, f"http://ada:s3cret@127.0.0.1:{server.server_port}", "digits")
        with pytest.raises(SweepError) as caught:
            mirror.sync()
        server.shutdown()
    sentence = str(caught.value)
    assert says in sentence
    assert len(sentence) < 350
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "uri", ["https://ada:s3cret@127.0.0.1:1", "https://ada:s3cret@/odd@127.0.0.1:1/x", "foo://s3cret@x"]
)
def test_a_password_is_written_nowhere(folder: Path, uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    Sweep(folder).session()
    mirror = Mirror(folder, uri, "digits")
    with pytest.raises(SweepError) as caught:
        mirror.sync()
    Mirror(folder, local_uri(folder), "digits").sync()
    mirror.start()
    mirror.stop(timeout=0.2)
    text = str(caught.value) + str(mirror.last_error) + (folder / STATE).read_text() + "".join(capfd.readouterr())
    assert "s3cret" not in text
    assert "ada" not in text.replace("adapter", "")


def test_a_folder_that_nobody_may_write_to_is_named() -> None:
    assert (
        explained(OSError(30, "Read-only file system", "a/mirror.lock"), "x") == "a/mirror.lock: Read-only file system"
    )


def test_redacting_leaves_the_rest_alone() -> None:
    assert redacted("https://ada:pass@host:5000/x") == "https://***@host:5000/x"
    assert redacted("at http://a:b@h/1 and http://c:d@h/2, ok") == "at http://***@h/1 and http://***@h/2, ok"
    for plain in ("https://host:5000", "sqlite:////a/b/mlflow.db", "write to me@home"):
        assert redacted(plain) == plain


def test_making_a_mirror_is_cheap_and_keeps_the_users_settings() -> None:
    code = (
        "import os, sys; from pathlib import Path; from sweep.tracking.mlflow import Mirror\n"
        "Mirror(Path('x'), 'http://host', 'digits')\n"
        "print('mlflow' in sys.modules, os.environ['MLFLOW_HTTP_REQUEST_TIMEOUT'],"
        " os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES'])"
    )
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT": "33"}
    environment.pop("MLFLOW_HTTP_REQUEST_MAX_RETRIES", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "33", "0"]
