"""A sweep's mirror in its own process: heard of, told when to end, gone with the sweep."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mirrored_study import ADVERSARIAL, PATIENCE, Shown, Sweep, free_port, until

from sweep.resources import is_alive
from sweep.tracking import follower
from sweep.tracking.address import local_uri
from sweep.tracking.follower import Follower
from sweep.tracking.mlflow import Mirror

pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")  # as in test_mlflow.py


@pytest.fixture
def folder(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    (tmp_path / "study.json").write_text('{"name": "digits"}')
    return tmp_path


def process_of(mirror: Follower) -> int:
    assert mirror._process is not None
    return mirror._process.pid


def test_it_mirrors_what_the_sweep_writes_and_another_follows_one_that_dies(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(follower, "AGAIN", 0.1)
    sweep, said = Sweep(folder), list[str]()
    mirror = Follower(folder, local_uri(folder), "digits", away="as was said before")
    mirror.say = said.append
    sweep.session()
    sweep.whole(0)
    mirror.start()
    first = process_of(mirror)
    until(lambda: mirror.unsent() == 0)
    sweep.whole(1)
    assert os.getpgid(first) != os.getpgid(0)  # Ctrl-C is the sweep's to hear
    os.kill(first, signal.SIGKILL)
    until(lambda: process_of(mirror) != first)
    sweep.whole(2)
    sweep.closed()
    assert mirror.stop(timeout=PATIENCE) == 0 and mirror.last_error is None
    shown = Shown(local_uri(folder))
    assert [shown.history(trial, ADVERSARIAL) for trial in range(3)] == [[(0, 0.0), (1, 0.1), (2, 0.2)]] * 3
    assert said[0] == "tracking goes on: mlflow.db answers again"
    assert said[1].startswith("tracking is behind: the process that tells MLflow of the sweep ended (it was killed, by")
    assert capfd.readouterr() == ("", "")


def test_it_goes_at_once_with_a_sweep_that_is_killed(folder: Path) -> None:
    sweep = Sweep(folder)
    sweep.session()
    code = (
        "import sys, time; from pathlib import Path; from sweep.tracking.follower import Follower\n"
        "mirror = Follower(Path(sys.argv[1]), sys.argv[2], 'digits'); mirror.start()\n"
        "print(mirror._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder), local_uri(folder)], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        process = int(killed.stdout.readline())
        assert b"mlflow.db" not in Path(f"/proc/{process}/cmdline").read_bytes()  # an address may hold a password
        killed.kill()
    until(lambda: not is_alive(process))
    Mirror(folder, local_uri(folder), "digits").sync()
    assert len(Shown(local_uri(folder)).parents) == 1


def test_of_one_that_cannot_be_reached_it_says_so_and_waits_no_longer_than_it_may(folder: Path) -> None:
    said: list[str] = []
    port = free_port()
    mirror = Follower(folder, f"http://ada:s3cret@127.0.0.1:{port}", "digits")
    mirror.say = said.append
    Sweep(folder).session()
    assert mirror.stop(timeout=0) == 1  # never started

    mirror = Follower(folder, f"http://ada:s3cret@127.0.0.1:{port}", "digits")
    mirror.say = said.append
    mirror.start()
    until(lambda: bool(said))
    began = time.monotonic()
    assert mirror.stop(timeout=0.5) == 1
    assert time.monotonic() - began < 60  # and not the minutes for which it would try
    address = f"http://***@127.0.0.1:{port}"
    assert mirror.last_error is not None and mirror.last_error.startswith(f"{address} cannot be reached: ")
    assert said[0].startswith(f"tracking is behind: {address} cannot be reached: ")
    assert mirror.stop(timeout=600) == 1  # once more, as after a Ctrl-C: at once


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> tuple[Follower, list[str]]:
    """A follower whose process is this shell script, begun again at once, and what it says."""
    python, said = folder / "python", list[str]()
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(follower, "AGAIN", 0.05)
    monkeypatch.setattr(sys, "executable", str(python))
    Sweep(folder).session()
    mirror = Follower(folder, local_uri(folder), "digits")
    mirror.say = said.append
    mirror.start()
    return mirror, said


def test_of_one_that_never_lives_it_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = tmp_path / "tries"
    mirror, said = started(tmp_path, monkeypatch, f"echo x >> {tries}; echo 'No module named mlflow'; exit 1")
    until(lambda: tries.exists() and tries.read_text().count("x") >= 3)
    assert mirror.stop(timeout=60) == 1
    why = "the process that tells MLflow of the sweep ended (No module named mlflow)"
    assert mirror.last_error == why
    assert said == [f"tracking is behind: {why}; another follows, and what is missing is sent later"]


def test_of_one_that_dies_without_a_word_it_tells_none_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = tmp_path / "tried"
    script = f"[ -e {tried} ] && exit 7; touch {tried}; echo 'No module named mlflow'; exit 1"
    mirror, said = started(tmp_path, monkeypatch, script)
    until(lambda: len(said) == 2)
    mirror.stop(timeout=60)
    assert "ended (No module named mlflow)" in said[0] and "ended (exit code 7)" in said[1]
