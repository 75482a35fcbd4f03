"""Kill a sweep at random moments, resume it each time, and count what was lost, doubled or forgotten.

    python benchmarks/faults.py --kills 20

A digits study on two Ray nodes and an MLflow server, all on this machine. One after another, at moments drawn by
chance, a driver, a trial's worker, the second node's raylet or the MLflow server is killed with SIGKILL. A dead driver
is followed by `sweep resume`, a dead node by a new one, a dead server by the same after some seconds; a study that ends
too early is extended. At the end journal, Optuna, rungs and MLflow's database are compared; all counts must be 0.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from faults_report import events, listed, report

STUDY_FILE = Path(__file__).with_name("faults_study.py")
KINDS = ("driver", "worker", "node", "server")
LONGEST_PAUSE = 20.0  # seconds between two kills, drawn evenly from 0 on
PATIENCE = 600.0  # seconds for the sweep to end once nothing is killed any more
SWEEP = [sys.executable, "-c", "from sweep.cli import main; main()"]
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]


class Machines:
    """Two Ray nodes, an MLflow server and a driver, each in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.studies = folder / "studies"
        self.database = folder / "mlflow.db"
        self.log = (folder / "log.txt").open("ab")
        self.ray_port, self.mlflow_port = _free_port(), _free_port()
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": str(folder / "ray"),
            "RAY_memory_monitor_refresh_ms": "0",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        for name in ("ray", "ray2"):
            (folder / name).mkdir()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start_head(self) -> None:
        ports = (f"--port={self.ray_port}", f"--ray-client-server-port={_free_port()}")
        self._start("head", [*RAY, "--head", *ports, "--include-dashboard=false", f"--temp-dir={self.folder / 'ray'}"])
        _wait_for(self.ray_port)

    def start_node(self) -> None:
        # Nodes that share a folder would delete each other's copy of the code that the driver sends.
        self._start("node", [*RAY, f"--address=127.0.0.1:{self.ray_port}", f"--temp-dir={self.folder / 'ray2'}"])

    def start_server(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.mlflow_port)]
        self._start("server", [*command, "--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}"])

    def start_driver(self) -> None:
        begun = (self.studies / "faults" / "study.json").exists()
        command = ["resume", "faults"] if begun else ["run", str(STUDY_FILE)]
        address = ["--address", f"127.0.0.1:{self.ray_port}", "--tracking-uri", f"http://127.0.0.1:{self.mlflow_port}"]
        self._start("driver", [*SWEEP, *command, "--studies", str(self.studies), *address])

    def extend(self, trials: int) -> None:
        command = [*SWEEP, "extend", "faults", "--studies", str(self.studies), "--trials", str(trials)]
        subprocess.run(command, env=self.environment, stdout=self.log, stderr=self.log, check=True)

    def victim(self, kind: str) -> int | None:
        """The process to kill, where there is one now."""
        if kind == "worker":
            return next(self._workers(), None)
        process = self.running[kind]
        if process.poll() is not None:
            return None
        return _child(process.pid, "raylet/raylet") if kind == "node" else process.pid

    def stop(self) -> None:
        """End everything that was started, whatever became of it."""
        for name in ("driver", "node", "head", "server"):
            if name in self.running:
                with suppress(ProcessLookupError):
                    os.killpg(self.running[name].pid, signal.SIGTERM)
        time.sleep(5)
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for pid, command in _processes():  # what Ray put into sessions of their own
            if str(self.folder) in command:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.log.close()

    def _start(self, name: str, command: list[str]) -> None:
        self.running[name] = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=self.log, cwd=self.folder, start_new_session=True
        )

    def _workers(self) -> Iterator[int]:
        """Processes that train a trial now, as the journal names them."""
        running = {}
        for event in events(self.studies / "faults"):
            if event["event"] == "started":
                running[event["trial"]] = event["pid"]
            elif event["event"] == "ended":
                running.pop(event["trial"], None)
        for pid in running.values():
            with suppress(OSError):
                if b"ray::" in Path("/proc", str(pid), "cmdline").read_bytes():
                    yield pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the folder, and say where it is")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults"))  # a short name: Ray's sockets lie below it
    machines = Machines(folder)
    began = time.monotonic()
    try:
        snapshots, killed = torment(machines, arguments.kills, random.Random(arguments.seed))
        print(f"{sum(killed.values())} kills ({listed(killed)}) in {(time.monotonic() - began) / 60:.1f} minutes")
        failures = report(machines.studies / "faults", machines.database, snapshots)
    finally:
        machines.stop()
        if arguments.keep:
            print(f"kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failures else 0)


def torment(machines: Machines, kills: int, chance: random.Random) -> tuple[list[bytes], Counter[str]]:
    """Kill so many times, and let the sweep end; gives the journal as it was at each kill, and the kills by kind."""
    machines.start_server()
    _wait_for(machines.mlflow_port)
    machines.start_head()
    machines.start_node()
    machines.start_driver()
    plan = [KINDS[number % len(KINDS)] for number in range(kills)]
    chance.shuffle(plan)
    snapshots, killed = [], Counter[str]()
    for number, kind in enumerate(plan, start=1):
        if chance.random() < 0.5:  # in the middle of training; else perhaps while something still starts
            _keep_alive_until_told_more(machines)
        _keep_alive(machines, chance.uniform(0, LONGEST_PAUSE))
        while (pid := machines.victim(kind)) is None:
            _keep_alive(machines, 0.2)
        snapshots.append(_journal(machines))
        if kind in ("driver", "server"):  # with their children
            os.killpg(pid, signal.SIGKILL)
            machines.running[kind].wait()
        else:
            _kill(pid)
        killed[kind] += 1
        print(f"kill {number}: {kind} {pid}, {snapshots[-1].count(b'event')} events in the journal", flush=True)
        if kind == "server":
            _keep_alive(machines, chance.uniform(0, LONGEST_PAUSE / 2), but="server")
    deadline = time.monotonic() + PATIENCE
    while machines.running["driver"].poll() != 0:
        _keep_alive(machines, 0.5, extend=False)
        if time.monotonic() > deadline:
            sys.exit(f"the sweep did not end; look into {machines.folder}/log.txt")
    return snapshots, killed


def _kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone, or lies there for its parent to bury."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        while Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.01)


def _keep_alive(machines: Machines, seconds: float, but: str = "", extend: bool = True) -> None:
    """For so long, start again whatever died, and give a study that ended more to do."""
    deadline = time.monotonic() + seconds
    while True:
        for name, start in (
            ("server", machines.start_server),
            ("node", machines.start_node),
            ("driver", machines.start_driver),
        ):
            ended = machines.running[name].poll()
            if ended is None or name == but:
                continue
            if name == "driver" and ended == 0:
                if not extend:
                    continue
                machines.extend(6)
            start()
        if time.monotonic() >= deadline:
            return
        time.sleep(0.1)


def _keep_alive_until_told_more(machines: Machines) -> None:
    """Until the journal has grown by an epoch, at most for `PATIENCE`."""
    before, deadline = _journal(machines).count(b'"event":"reported"'), time.monotonic() + PATIENCE
    while _journal(machines).count(b'"event":"reported"') == before and time.monotonic() < deadline:
        _keep_alive(machines, 0.2)


def _journal(machines: Machines) -> bytes:
    """The journal's whole lines; a torn last one never counted."""
    path = machines.studies / "faults" / "journal.log"
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    sys.exit(f"nobody listens on port {port}")


def _processes() -> Iterator[tuple[int, str]]:
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(path.name), (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _child(parent: int, mark: str) -> int | None:
    """The process below `parent` whose command line holds `mark`."""
    for pid, command in _processes():
        with suppress(OSError, ValueError):
            if mark in command.split(" ")[0] and int(Path("/proc", str(pid), "stat").read_text().split()[3]) == parent:
                return pid
    return None


if __name__ == "__main__":
    main()
