"""Sweeps on a real Ray: two trials at once, processes that are killed at every level, and still the same figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from processes import killed, of_ray, paused, pausing
from tiny_study import METRIC, events, figures, tiny

from sweep.configuration import TrialConfig
from sweep.errors import JournalError, StudyError
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.registry import validated
from sweep.study import Asha, Budget, Resources, Study
from sweep.trial import Trial

pytestmark = pytest.mark.slow

RUN = """
import sys
from pathlib import Path
from sweep.errors import SweepError
from sweep.orchestration import ray_tune
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened

try:
    with opened(StudyFolder(Path(sys.argv[1]))) as search:
        ray_tune.run(search)
except SweepError as error:
    sys.exit(str(error))
"""
Told = list[dict[str, Any]]


def slow_tiny(**changes: Any) -> Study:
    """Epochs long enough to be killed in."""
    dataset = {"name": "digits", "train_size": 800, "validation_size": 300}
    return tiny(concurrency=2, **{"space": {"dataset": dataset, "epochs": 5}, **changes})


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray's sessions, in a folder whose name is short enough for its sockets; its processes end with the test."""
    path = tempfile.mkdtemp(prefix="ray")
    monkeypatch.setenv("RAY_TMPDIR", path)
    yield
    for pid in of_ray(path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path, ignore_errors=True)


def start(folder: Path, moment: str = "False") -> subprocess.Popen[str]:
    """A driver, which stands still at a moment, with a session of its own, as a terminal would give it: a signal to its
    group is Ctrl-C."""
    command = [*pausing(moment, RUN), str(folder)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def ends_well(driver: subprocess.Popen[str], saying: str = "") -> None:
    """It exits with 0, having said just this (a regular expression)."""
    output, _ = driver.communicate()
    assert driver.returncode == 0, output
    assert re.fullmatch(saying, output, re.DOTALL), output


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}  # as /proc writes it


def listening() -> set[str]:
    """The addresses at which processes of this test's Ray wait for connections."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                sockets[f"socket:[{fields[9]}]"] = fields[1].partition(":")[0]
    found = set()
    for process in of_ray(os.environ["RAY_TMPDIR"]):
        with suppress(OSError):  # it has just ended
            links = {str(file.readlink()) for file in Path(f"/proc/{process}/fd").iterdir()}
            found |= {sockets[link] for link in links & sockets.keys()}
    return found


def check_that_nothing_is_doubled(told: Told, trials: int) -> None:
    for kind in ("asked", "ended"):
        assert sorted(event["trial"] for event in told if event["event"] == kind) == list(range(trials)), kind
    reported = [(event["trial"], event["epoch"]) for event in told if event["event"] == "reported"]
    assert len(reported) == len(set(reported))
    attempts = [(event["trial"], event["attempt"]) for event in told if event["event"] == "started"]
    assert len(attempts) == len(set(attempts))


def test_two_at_once_early_stopping_and_a_worker_that_is_killed(tmp_path: Path, ray_folder: None) -> None:
    good = {"defense": "standard", "optimizer": {"learning_rate": 0.1}}
    hopeless = {"defense": "standard", "optimizer": {"learning_rate": 1e-3}}
    study = slow_tiny(
        budget=Budget(trials=5),
        enqueue=[good, good, hopeless, hopeless, hopeless],
        early_stopping=Asha(grace_period=2, reduction_factor=3),
    )
    folder = StudyFolder.create(tmp_path, study).path
    driver = start(folder, "[told[-1].get(key) for key in ('event', 'trial', 'epoch')] == ['reported', 0, 2]")
    paused(driver)
    (first,) = [event for event in events(folder, "started") if event["trial"] == 0]
    addresses = listening()
    assert addresses and addresses <= LOOPBACK, addresses
    os.kill(first["pid"], signal.SIGKILL)
    driver.send_signal(signal.SIGCONT)
    ends_well(driver, saying=".*")  # Ray tells of the dead process, at length

    told = events(folder)
    check_that_nothing_is_doubled(told, 5)
    ledger = StudyFolder(folder).ledger()
    assert [trial.end for trial in ledger] == ["completed", "completed", "stopped", "stopped", "stopped"]
    assert [trial.epoch for trial in ledger] == [5, 5, 2, 2, 2]
    assert [trial.attempts for trial in ledger] == [2, 1, 1, 1, 1]
    again = [event for event in told if event["event"] == "started" and event["trial"] == 0][1]
    assert again["pid"] != first["pid"]
    assert events(folder, "closed")[0]["reason"] == "finished"
    # Two ran at once: both were asked before either ended.
    order = [(event["event"], event.get("trial")) for event in told]
    assert order.index(("asked", 1)) < min(order.index(("ended", 0)), order.index(("ended", 1)))
    # The killed trial and the other one have the figures of the same configuration run alone.
    for trial in ledger.ranked(study.objective[0]):
        alone = Trial(validated(TrialConfig, trial.config, "trial"))
        results = {result.epoch: result.metrics for result in alone.run()}
        kept = figures(folder)[trial.number]
        for epoch, metrics in kept["reports"].items():
            assert metrics.items() <= results[epoch].items()
        assert kept["final"] == alone.finish()


def test_ctrl_c_then_a_killed_driver_and_still_every_figure_is_the_unbroken_ones(
    tmp_path: Path, ray_folder: None
) -> None:
    study = slow_tiny(budget=Budget(trials=5))
    folder = StudyFolder.create(tmp_path / "broken", study).path

    driver = start(folder, "{event['trial'] for event in told if event['event'] == 'reported'} >= {0, 1}")
    paused(driver)
    os.killpg(driver.pid, signal.SIGINT)
    driver.send_signal(signal.SIGCONT)
    ends_well(driver, saying="running trials finish their epoch and save; Ctrl-C again ends at once\n")
    told = events(folder)
    assert told[-1]["event"] == "closed" and told[-1]["reason"] == "interrupted"
    over = {event["trial"] for event in told if event["event"] == "ended"}
    assert len(over) < 5

    driver = start(folder, "told[-1]['event'] == 'reported'")
    paused(driver)
    killed(driver)
    assert events(folder)[-1]["event"] == "reported"

    while list(of_ray(os.environ["RAY_TMPDIR"])):  # which ends with its driver
        time.sleep(0.1)
    said: list[str] = []
    with opened(StudyFolder(folder), say=said.append) as search:  # and on without Ray, to the same figures
        in_process.run(search)
    (sentence,) = said
    assert sentence.startswith(f"took over the lock of process {driver.pid} on ") and sentence.endswith("which is gone")
    told = events(folder)
    check_that_nothing_is_doubled(told, 5)
    assert [event["session"] for event in told if event["event"] == "session"] == [1, 2, 3]
    assert told[-1]["event"] == "closed" and told[-1]["reason"] == "finished"

    unbroken = StudyFolder.create(tmp_path / "unbroken", study)
    with opened(unbroken) as search:
        in_process.run(search)
    assert figures(folder) == figures(unbroken.path)


@pytest.mark.slow
def test_trials_are_promoted_while_others_run(tmp_path: Path, ray_folder: None) -> None:
    rule = Asha(kind="promotion", grace_period=1, reduction_factor=2)
    folder = StudyFolder.create(tmp_path, tiny(concurrency=2, budget=Budget(trials=9), early_stopping=rule)).path
    ends_well(start(folder))

    check_that_nothing_is_doubled(events(folder), 9)
    ledger = StudyFolder(folder).ledger()
    assert len(ledger.promoted) == len({*ledger.promoted.values()}) >= 2
    for shorter, longer in ledger.promoted.items():
        trial, source = ledger.trials[longer], ledger.trials[shorter]
        assert trial.epoch == trial.config["epochs"] > source.epoch == source.config["epochs"]
        assert trial.config | {"epochs": 0} == source.config | {"epochs": 0}
    assert {trial.end for trial in ledger if not trial.is_whole} == {"stopped"}
    for longer in ledger.promoted.values():  # from scratch, and to the same figures alone
        kept, trial = figures(folder)[longer], ledger.trials[longer]
        alone = {one.epoch: one.metrics for one in Trial(validated(TrialConfig, trial.config, "trial")).run()}
        assert all(metrics.items() <= alone[epoch].items() for epoch, metrics in kept["reports"].items())


def test_a_trial_that_this_machine_can_never_hold_is_refused(tmp_path: Path, ray_folder: None) -> None:
    folder = StudyFolder.create(tmp_path, tiny(per_trial=Resources(cpus=512))).path
    driver = start(folder)
    output, _ = driver.communicate()
    assert driver.returncode == 1, output
    assert "a trial needs 512 CPUs and 0 GPUs, and this machine has" in output and "lower per_trial" in output
    assert [event["event"] for event in events(folder)] == ["session", "closed"]


def test_what_goes_wrong_in_the_search_ends_the_sweep_in_order_and_is_told(tmp_path: Path) -> None:
    """Tune would log it, take the trial for failed, and go on."""
    from sweep.orchestration.bridge import Bridge

    folder = StudyFolder.create(tmp_path, tiny())
    with pytest.raises(JournalError, match="another process writes to it"), opened(folder) as search:
        bridge = Bridge(search)
        assignment = bridge.ask("a")
        assert assignment is not None and assignment.number == 0
        with folder.journal.open("ab") as file:
            file.write(b"not ours\n")
        message = {"trial": 0, "node": "here", "pid": 1, "epoch": 1, "metrics": {METRIC: 0.5}}
        assert bridge.hear("a", {"message": json.dumps(message), "last": False}) is False
        assert isinstance(bridge.failure, JournalError)
        assert bridge.ask("b") is None
        bridge.died("a", "")
        bridge.lost("a")
        assert search.ledger.trials[0].end is None


def test_a_larger_share_is_a_larger_place() -> None:
    from sweep.orchestration.attempts import Attempts
    from sweep.orchestration.ray_tune import _placement

    attempts = Attempts(tiny(per_trial=Resources(cpus=2, gpus=0.3)))
    attempts.look_at([Resources(cpus=64), Resources(cpus=7, gpus=1), Resources(cpus=1, gpus=8)])
    places = [_placement({"place": attempts.place(share).model_dump()}).bundles for share in (1, 2, 4)]
    assert places == [[{"CPU": 2, "GPU": 0.3}], [{"CPU": 4, "GPU": 0.6}], [{"CPU": 7, "GPU": 1}]]


def test_as_many_trials_share_a_gpu_as_it_has_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweep.orchestration import ray_tune

    monkeypatch.setattr(ray_tune, "_nodes", lambda: [Resources(cpus=64, gpus=1)])
    assert ray_tune._capacity(Resources(gpus=0.1)) == 10  # where 1 // 0.1 is 9
    assert ray_tune._capacity(Resources(cpus=9, gpus=0.1)) == 7
    with pytest.raises(StudyError, match=r"needs 1 CPU and 1 GPU of type H100, and this machine has 64 CPUs and 1"):
        ray_tune._capacity(Resources(gpus=1, accelerator_type="H100"))
