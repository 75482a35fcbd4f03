"""A cluster of two Ray nodes on this machine, behind a token, neither of which has sweep: the head, which runs no
trials, and a worker. It is looked at, joined, and sent a job."""

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
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from test_commands import TINY
from tiny_study import events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

ROOT = Path(__file__).parents[2]
PATIENCE = 250.0  # seconds for anything that a busy machine may take its time over
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"]
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


def free_ports() -> Iterator[int]:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        yield port


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
    ports = free_ports()
    port, page = next(ports), next(ports)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(folder),
        "RAY_memory_monitor_refresh_ms": "0",
    }
    absent = subprocess.run(
        [sys.executable, "-c", "import sweep"], cwd="/", env=environment, capture_output=True, check=False
    )
    assert b"No module named 'sweep'" in absent.stderr
    ports_of = (f"--port={port}", f"--dashboard-port={page}", f"--ray-client-server-port={next(ports)}")
    head = [*RAY, "--head", "--num-cpus=0", f"--temp-dir={folder / 'a'}", *ports_of]  # two nodes must not share one
    try:
        for command in (head, [*RAY, f"--address=127.0.0.1:{port}", "--num-cpus=2", f"--temp-dir={folder / 'b'}"]):
            with (folder / "log.txt").open("wb") as log:
                code = subprocess.call(command, env=environment, cwd="/", stdout=log, stderr=log, timeout=PATIENCE)
            assert code == 0, (folder / "log.txt").read_text()
        wait_for(page)
        yield Cluster(folder, f"127.0.0.1:{port}", f"http://127.0.0.1:{page}", environment)
    finally:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            for pid in processes(folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, kind)
            time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)


def processes(folder: Path) -> Iterator[int]:
    """Those that this cluster's Ray started, by what stands in their environment."""
    mark = f"RAY_TMPDIR={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if mark in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name)


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
    study, deadline = cluster.folder / "sent" / "tiny", time.monotonic() + PATIENCE
    while not events(study, "closed"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [event["end"] for event in events(study, "ended")] == ["completed"] * 3
    # A name instead of a file goes on with a study, and here there is none of that name.
    assert "unknown study 'tinny'; did you mean 'tiny'?" in cluster.sweep("submit", "tinny", *there, "--follow", code=1)
