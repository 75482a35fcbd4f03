"""Sweeps at the command line whose processes are killed, stopped and lost: each trial ends in the right state, once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from processes import of_ray, paused, pausing

from sweep.checkpoint import write_json
from sweep.cli.files import load_study
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.study import Resources
from sweep.tracking import journal

pytestmark = pytest.mark.slow

PATIENCE = 280  # seconds for anything that a busy machine may take its time over
ENDLESS = 100_000  # epochs

STUDY = '''"""For tests: {title}."""

from sweep.study import Budget, Choice, Limits, Maximize, SearchSpace, Study

STUDY = Study(
    name="tiny",
    space=SearchSpace(
        dataset=dict(name="digits", train_size=200, validation_size=100),
        model=dict(name="small_cnn", width=4),
        threat_model=dict(name="linf", epsilon=0.05),
        epochs={epochs},
        batch_size=50,
        optimizer=dict(name="sgd", learning_rate=0.1),
        defense="standard",
    ),
    search_attack=dict(name="pgd", num_steps=2),
    objective=Maximize("validation/pgd_2/adversarial_accuracy"),
    sampler="random",
    enqueue={enqueue},
    budget=Budget(trials={trials}),
    concurrency=2,
    retries=9,
    limits=Limits({limits}),
)
'''
HOOK = """
import importlib.abc, os, sys, time


class Stuck(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        while name == "sweep.orchestration.ray_tune" and "default_worker" in sys.argv[0] and os.path.exists({flag!r}):
            time.sleep(0.1)


sys.meta_path.insert(0, Stuck())
"""
Told = list[dict[str, Any]]


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray's sessions, in a folder whose name is short enough for its sockets and marks this test's processes."""
    path = Path(tempfile.mkdtemp(prefix="ray"))
    (path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(path))
    yield path
    for pid in of_ray(path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path, ignore_errors=True)


def sweep(folder: Path, *arguments: str, moment: str = "False") -> subprocess.Popen[str]:
    """A driver that stands still at a moment."""
    command = [*pausing(moment), *arguments]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def told(folder: Path, *kinds: str) -> Told:
    path = folder / "studies" / "tiny" / journal.FILE_NAME
    found = [event for event, _ in journal.read(path)] if path.exists() else []
    return [event for event in found if not kinds or event["event"] in kinds]


def of(trial: int, folder: Path, *kinds: str) -> Told:
    return [event for event in told(folder, *kinds) if event.get("trial") == trial]


def wait_until(condition: Callable[[], Any], driver: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert driver is None or driver.poll() is None, f"the driver ended early: {driver.communicate()[0]}"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ends_well(driver: subprocess.Popen[str]) -> str:
    output, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0 and "Traceback (most recent" not in output, output
    return output


def family() -> list[int]:
    """The processes that this test's Ray started, and its drivers."""
    return list(of_ray(os.environ["RAY_TMPDIR"]))


def check_that_nothing_is_doubled(folder: Path, trials: int) -> None:
    assert [event["trial"] for event in told(folder, "asked")] == list(range(trials))
    assert sorted(event["trial"] for event in told(folder, "ended")) == list(range(trials))
    for kind, counter in (("reported", "epoch"), ("started", "attempt")):
        for trial in range(trials):
            numbers = [event[counter] for event in of(trial, folder, kind)]
            assert numbers == list(range(1, len(numbers) + 1)), (kind, trial)


def test_a_hang_a_killed_worker_a_killed_driver_and_a_time_limit(tmp_path: Path, ray_folder: Path) -> None:
    enqueue = [{"epochs": ENDLESS}, {"epochs": 12}, {"epochs": 12}]
    study = STUDY.format(
        title="what hangs and dies",
        epochs=f"Choice(12, {ENDLESS})",
        enqueue=enqueue,
        trials=3,
        limits="epoch_hours=25 / 3600",
    )
    (tmp_path / "tiny.py").write_text(study)

    driver = sweep(tmp_path, "run", "tiny.py", moment="told[-1]['event'] == 'reported' and told[-1]['trial'] == 1")
    paused(driver)
    os.kill(of(1, tmp_path, "started")[-1]["pid"], signal.SIGKILL)
    driver.send_signal(signal.SIGCONT)
    wait_until(lambda: of(1, tmp_path, "lost"), driver)
    death = of(1, tmp_path, "lost")[0]
    assert death["error"]["class"] == "WorkerDied" and Path(death["error"]["log"]).is_file() and death["error"]["node"]
    wait_until(lambda: of(0, tmp_path, "reported"), driver)
    stopped = of(0, tmp_path, "started")[-1]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    attempts = len(of(0, tmp_path, "started"))
    wait_until(lambda: len(of(0, tmp_path, "lost")) >= attempts, driver)
    assert of(0, tmp_path, "lost")[-1]["error"]["class"] == "Hang"
    wait_until(lambda: not Path("/proc", str(stopped)).exists(), driver)
    wait_until(lambda: len(of(0, tmp_path, "started")) > attempts and len(told(tmp_path, "ended")) == 2, driver)

    driver.kill()
    driver.communicate()
    wait_until(lambda: not family())  # of Ray nothing is left
    before = len(told(tmp_path))

    # Limits may be changed between sessions. This one is over soon after the trial goes on, if all of its time counts.
    folder = StudyFolder(tmp_path / "studies" / "tiny")
    record = folder.record()
    record["study"]["limits"]["trial_hours"] = (folder.ledger().trials[0].seconds + 1) / 3600
    write_json(folder.path / "study.json", record)
    printed = ends_well(sweep(tmp_path, "resume", "tiny"))
    wait_until(lambda: not family())
    check_that_nothing_is_doubled(tmp_path, 3)
    assert {event.get("trial") for event in told(tmp_path)[before:]} == {None, 0}
    ends = {event["trial"]: event for event in told(tmp_path, "ended")}
    assert [ends[trial]["end"] for trial in range(3)] == ["timed_out", "completed", "completed"]
    assert ends[0]["error"]["class"] == "TimeLimit"
    assert "hours for a trial (limits.trial_hours)" in printed and "lost and made again" in printed
    assert ends[0]["time"] - of(0, tmp_path, "started")[-1]["time"] < 25


def test_a_node_that_is_lost_and_was_the_only_one_for_a_larger_trial(
    tmp_path: Path, ray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # which keeps both nodes on loopback
    for name, value in (("period_ms", 1000), ("timeout_ms", 4000), ("failure_threshold", 4)):
        monkeypatch.setenv(f"RAY_health_check_{name}", str(value))  # a lost node is noticed in 4 seconds, not in 15
    from ray.cluster_utils import Cluster

    study = STUDY.format(title="a lost node", epochs="200", enqueue=(), trials=2, limits="")
    (tmp_path / "tiny.py").write_text(study)
    with opened(StudyFolder.create(tmp_path / "studies", load_study(tmp_path / "tiny.py"))) as search:
        search.attempts.node = Resources(cpus=2)
        assert search.ask() is not None
        search.started(0, "here", 1)
        search.lost(0, {"class": "OutOfMemoryError", "message": "no more"}, memory="host")  # it is to get two CPUs
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=2)
        moment = "(told[-1]['event'], told[-1].get('trial')) == ('reported', 0)"
        driver = sweep(tmp_path, "resume", "tiny", "--address", cluster.address, moment=moment)
        paused(driver)
        raylet = node.all_processes["raylet"][0].process.pid
        children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
        assert str(of(0, tmp_path, "started")[-1]["pid"]) in children
        os.kill(raylet, signal.SIGKILL)
        driver.send_signal(signal.SIGCONT)
        printed = ends_well(driver)
    finally:
        cluster.shutdown()
    check_that_nothing_is_doubled(tmp_path, 2)
    assert [event["end"] for event in told(tmp_path, "ended")] == ["completed"] * 2
    _, lost = told(tmp_path, "lost")
    assert lost["trial"] == 0 and lost["error"]["class"] == "NodeDied" and lost["share"] == 2, lost
    assert "NodeDied: its node was lost" in printed


RUN = """
import sys
from pathlib import Path

from sweep.orchestration import attempts, ray_tune
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.study import Limits

attempts.LEAST_START = 0.0


def say(text):
    print(text, flush=True)
    search.attempts.study = search.study.model_copy(update={"limits": Limits()})  # the next one has time
    Path(sys.argv[2]).unlink(missing_ok=True)


with opened(StudyFolder(Path(sys.argv[1])), say=say) as search:
    ray_tune.run(search)
"""


def test_a_process_that_hangs_before_its_first_word(
    tmp_path: Path, ray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's workers hang in an import, as on a file system that does not answer, while a file is there."""
    flag = tmp_path / "stuck"
    flag.touch()
    (tmp_path / "sitecustomize.py").write_text(HOOK.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    study = STUDY.format(title="a stuck start", epochs="2", enqueue=(), trials=2, limits="epoch_hours=3 / 3600")
    (tmp_path / "tiny.py").write_text(study)
    folder = StudyFolder.create(tmp_path / "studies", load_study(tmp_path / "tiny.py"))
    command = [sys.executable, "-c", RUN, str(folder.path), str(flag)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "its process did not start in 0.000833333 hours (limits.epoch_hours)" in done.stdout
    assert [event["end"] for event in told(tmp_path, "ended")] == ["completed"] * 2 and told(tmp_path, "lost") == []
    check_that_nothing_is_doubled(tmp_path, 2)
    wait_until(lambda: not family())
