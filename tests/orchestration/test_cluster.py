"""A cluster of Ray nodes on this machine, behind a token, none of which has sweep: the head, which runs no trials, a
worker, and others that come and go. It is looked at, joined, and sent a job."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mirrored_study import free_port
from processes import of_ray
from team_server import object_store
from test_commands import TINY
from tiny_study import events

from sweep.errors import StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.storage import below

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PATIENCE = 250.0  # seconds for anything that a busy machine may take its time over
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
WITHOUT_SWEEP = """
import sys
from pathlib import Path

sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
sys.path[:] = [place for place in sys.path if "runtime_resources" in place or not Path(place, "sweep").is_dir()]
"""


@dataclass(frozen=True)
class Cluster:
    folder: Path
    address: str
    page: str
    environment: dict[str, str]

    def sweep(self, *arguments: str, code: int = 0) -> str:
        """A command in a process of its own, as a user of the cluster would give it; everything it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "sweep", *arguments],
            cwd=self.folder,
            env=self.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, name: str, *options: str) -> None:
        """A node, over the folder of its name: two nodes must not share one."""
        log = self.folder / f"{name}.txt"
        with log.open("wb") as file:
            command = [*RAY, "start", "--disable-usage-stats", *options, f"--temp-dir={self.folder / name}"]
            code = subprocess.call(command, env=self.environment, cwd="/", stdout=file, stderr=file, timeout=PATIENCE)
        assert code == 0, log.read_text()

    def ray(self, *arguments: str) -> str:
        """What Ray's own command prints."""
        command = [*RAY, *arguments]
        return subprocess.run(
            command, env=self.environment, cwd="/", stdout=subprocess.PIPE, text=True, check=True
        ).stdout


def wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # a short name: Ray's sockets lie below it
    (folder / "sitecustomize.py").write_text(WITHOUT_SWEEP)
    (folder / "tiny.py").write_text(TINY)
    port, page = free_port(), free_port()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(folder),
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing"),
    }
    absent = subprocess.run(
        [sys.executable, "-c", "import sweep"], cwd="/", env=environment, capture_output=True, check=False
    )
    assert b"No module named 'sweep'" in absent.stderr
    cluster = Cluster(folder, f"127.0.0.1:{port}", f"http://127.0.0.1:{page}", environment)
    try:
        options = [f"--port={port}", f"--dashboard-port={page}", f"--ray-client-server-port={free_port()}"]
        options += [
            f"--dashboard-agent-listen-port={free_port()}"
        ]  # jobs want the agent, and other tests run Rays, too
        cluster.start("a", "--head", "--num-cpus=0", *options)
        cluster.start("b", f"--address={cluster.address}", "--num-cpus=2")
        wait_for(page)
        yield cluster
    finally:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            for pid in of_ray(folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, kind)
            time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_every_node_is_looked_at(cluster: Cluster) -> None:
    printed = json.loads(cluster.sweep("doctor", "tiny.py", "--address", cluster.address, "--json"))
    checks = [finding["check"] for finding in printed["findings"]]
    assert printed["well"] and checks == [*["versions", "GPUs", "storage", "disk", "data"] * 2, "MLflow"]
    stranger = replace(cluster, environment=cluster.environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
    refused = stranger.sweep("submit", "tiny.py", "--address", cluster.page, "--studies", "/x", code=2)
    assert refused.startswith("error: Ray's jobs at http") and "Invalid authentication token" in refused


def test_a_sweep_brings_its_code_to_workers_that_have_none(cluster: Cluster) -> None:
    printed = cluster.sweep("run", "tiny.py", "--address", cluster.address)
    assert "3 trials: 3 completed" in printed
    told = events(cluster.folder / "studies" / "tiny", "started")
    assert len(told) == 3


def test_a_job_goes_on_without_the_one_who_sent_it_and_can_be_followed(cluster: Cluster) -> None:
    there = ("--address", cluster.page, "--studies", str(cluster.folder / "sent"))
    printed = cluster.sweep("submit", "tiny.py", *there)
    assert printed.startswith("sent as sweep-tiny-") and f"sweep submit tiny --address {cluster.page}" in printed
    study = cluster.folder / "sent" / "tiny"
    until(lambda: events(study, "closed"))
    assert [event["end"] for event in events(study, "ended")] == ["completed"] * 3
    # A name instead of a file goes on with a study, and here there is none of that name.
    assert "unknown study 'tinny'; did you mean 'tiny'?" in cluster.sweep("submit", "tinny", *there, "--follow", code=1)


def test_a_job_whose_study_is_in_a_store_goes_on_from_a_machine_that_has_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store(tmp_path, "bucket") as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        storage = f"s3://bucket/studies?endpoint_override={store.endpoint}&region=us-east-1"
        study, deadline = below(storage, "tiny"), time.monotonic() + PATIENCE
        printed = cluster.sweep("submit", "tiny.py", "--address", cluster.page, "--storage", storage)
        assert f"sweep status '{study}'" in printed
        while True:  # whoever sent it is gone
            with suppress(StudyError):  # it has not begun yet
                folder = StudyFolder.find(tmp_path / "laptop" / "studies", study)
                if events(folder.path, "closed") and folder.runner() is None:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert folder.ledger().counts() == {"completed": 3}
        other = replace(cluster, folder=tmp_path)
        other.sweep("extend", study, "--trials", "1")
        assert "4 trials: 4 completed" in other.sweep("resume", study, "--in-process")
        assert "say once where" in other.sweep("submit", study, "--address", cluster.page, "--storage", storage, code=2)


PICKY = """per_trial=Resources(gpus=0.5, accelerator_type="A10G", labels={"pool": "spot"}),
    name="picky","""


def test_trials_wait_for_a_node_that_suits_them_share_its_gpu_and_leave_it_when_it_is_drained(cluster: Cluster) -> None:
    changes = {
        'name="tiny",': PICKY,
        "Study\n": "Resources, Study\n",
        "epochs=2": "epochs=3000",
        "trials=3": "trials=2",
    }
    source = TINY
    for old, new in changes.items():
        source = source.replace(old, new, 1)
    (cluster.folder / "picky.py").write_text(source)
    command = [sys.executable, "-m", "sweep", "run", "picky.py", "--address", cluster.address]
    study, told = cluster.folder / "studies" / "picky", cluster.folder / "picky.txt"
    with told.open("wb") as log:
        environment = cluster.environment | {"PYTHONPATH": str(ROOT)}
        sweep = subprocess.Popen(command, cwd=cluster.folder, env=environment, stdout=log, stderr=log)

    def of(started: dict[str, Any]) -> str:
        """The node that a process started on: its log lies in that node's folder."""
        return Path(started["log"]).relative_to(cluster.folder).parts[0]

    try:
        needs = "needs 1 CPU and 0.5 GPUs of type A10G on a node with the label pool=spot, and no node has them"
        until(lambda: needs in told.read_text())
        # What Ray's autoscaler is asked for, before there is such a node.
        until(lambda: "'GPU': 0.5" in cluster.ray("status", f"--address={cluster.address}"))
        suited = (f"--address={cluster.address}", "--num-cpus=2", "--num-gpus=1")
        labels = "--labels=pool=spot,ray.io/accelerator-type=A10G,name="
        cluster.start("c", *suited, f"{labels}c")
        nodes = json.loads(cluster.ray("list", "nodes", f"--address={cluster.page}", "--format=json", "--detail"))
        (drained,) = (node["node_id"] for node in nodes if node["labels"].get("name") == "c")
        until(lambda: {event["trial"] for event in events(study, "reported")} == {0, 1})
        reason = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=600")
        cluster.ray("drain-node", f"--address={cluster.address}", f"--node-id={drained}", *reason)
        cluster.start("d", *suited, f"{labels}d")
        until(lambda: {event["trial"] for event in events(study, "started") if of(event) == "d"} == {0, 1})
        moved = len(events(study, "reported"))
        until(lambda: len(events(study, "reported")) > moved)
        sweep.send_signal(signal.SIGINT)
        assert sweep.wait(PATIENCE) == 130, told.read_text()
    finally:
        sweep.kill()
        sweep.wait()
    assert "its node is being drained: goes on elsewhere" in told.read_text()
    places = [(event["trial"], of(event)) for event in events(study, "started")]
    assert sorted(places) == [(0, "c"), (0, "d"), (1, "c"), (1, "d")] and events(study, "lost", "ended") == []
    at = [event["epoch"] for event in events(study, "reported") if event["trial"] == 0]
    assert at == list(range(1, len(at) + 1))
