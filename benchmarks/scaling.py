"""What more nodes bring, and what trials that run at once cost the driver: sleeping trials through a sweep's search.

    python benchmarks/scaling.py --nodes 1 2 4 --at-once 10 50 500

Ray nodes on this machine, each with `--places` places, joined as `sweep run --address` joins them: TPE, early stopping,
journal and MLflow's mirror are those of a sweep, and only the trials sleep, for `--epochs` epochs of `--epoch` seconds,
one trial after another at each place. Trials an hour are counted in epochs, over 90 seconds in which every place is
taken. Exit code 1 where a cluster of several nodes does less than 0.9 of what so many single nodes do.

The driver's cost is that of `--at-once` trials on one node, each of which ends an epoch every ten seconds: CPU of the
driver's process, and what its memory grew by. Beyond `--processes`, more than a machine has room for, the trials are
no processes: their messages go straight to the search, and Tune's share is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweep.orchestration import ray_tune
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import Search, opened
from sweep.study import Asha, Budget, Choice, Integer, LogUniform, Maximize, SearchSpace, Study, Uniform
from sweep.tracking.address import local_uri
from sweep.tracking.follower import Follower

# isort: split
import ray
from ray import tune

METRIC = "validation/pgd_10/adversarial_accuracy"
LEAST_EFFICIENCY = 0.9
SLOW_EPOCH = 10.0  # seconds of an epoch where the driver's cost is measured
WINDOW = 90.0  # seconds over which everything is
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"]


class Sleeping(tune.Trainable):  # type: ignore[misc]
    """A trial that sleeps; without importing torch, so that many of them fit on a machine."""

    epochs, epoch = 1, 1.0

    def setup(self, config: dict[str, Any]) -> None:
        self._messages = sleeping(json.loads(config["assignment"]), self.epochs, self.epoch)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self.setup(config)
        return True

    def step(self) -> dict[str, Any]:
        message = next(self._messages)
        last, node = "end" in message, ray.get_runtime_context().get_node_id()
        return {"message": json.dumps(message), "last": last, "done": last, "node_id": node}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing is kept."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """As above."""


def sleeping(assignment: Mapping[str, Any], epochs: int, seconds: float) -> Iterator[dict[str, Any]]:
    origin = {"trial": assignment["number"], "node": "here", "pid": os.getpid()}
    yield origin | {"log": None}
    config = assignment["config"]
    value = 1 / (1 + abs(config["optimizer"]["learning_rate"] - 0.1) + 10 * abs(config["defense"]["epsilon"] - 0.02))
    for epoch in range(1, epochs + 1):
        time.sleep(seconds)
        metrics = {
            METRIC: value * epoch / epochs,
            "validation/clean_accuracy": 0.9,
            "gradient_evaluations": 1.0 * epoch,
        }
        yield origin | {"epoch": epoch, "metrics": metrics}
    yield origin | {"end": "completed", "final": {METRIC: value}, "validity": None, "error": None}


def study(trials: int, epochs: int) -> Study:
    return Study(
        name="sleeping",
        space=SearchSpace(
            dataset="digits",
            model={"name": "small_cnn", "width": Integer(4, 32)},
            threat_model={"name": "linf", "epsilon": 0.03},
            epochs=epochs,
            batch_size=Choice(64, 128, 256),
            optimizer={"name": "sgd", "learning_rate": LogUniform(1e-3, 0.5), "momentum": Uniform(0.5, 0.95)},
            defense={"name": "adversarial_training", "epsilon": Uniform(0.01, 0.04), "attack": {"name": "pgd"}},
        ),
        search_attack={"name": "pgd", "num_steps": 10},
        objective=Maximize(METRIC),
        early_stopping=Asha(resource="epochs", grace_period=epochs, reduction_factor=3),  # judges, and stops none early
        budget=Budget(trials=trials),
    )


class Meter:
    """Hears the journal, and from when so many trials run at once until `WINDOW` is over notes after each event the
    time, the driver's CPU time and the epochs so far; then it interrupts the sweep."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.search: Search | None = None
        self.running, self.epochs, self.before, self.memory = 0, 0, 0, 0
        self.notes: list[tuple[float, float, int]] = []

    def hear(self, event: Mapping[str, Any]) -> None:
        self.running += {"started": 1, "ended": -1}.get(event["event"], 0)
        self.epochs += event["event"] == "reported"
        self.before = self.before or _resident()
        if not self.notes and self.running < self.at_once:
            return
        self.notes.append((time.monotonic(), time.process_time(), self.epochs))
        if self.search and self.notes[-1][0] > self.notes[0][0] + WINDOW and not self.search.interrupted:
            self.memory = _resident() - self.before
            self.search.interrupted = True

    def rates(self) -> tuple[float, float]:
        """Seconds of CPU and epochs a second, within the window."""
        (began, used, epochs), *rest = self.notes
        ended, used_then, epochs_then = next(note for note in rest if note[0] > began + WINDOW)
        return (used_then - used) / (ended - began), (epochs_then - epochs) / (ended - began)


def drive(folder: Path, address: str, epochs: int, epoch: float, at_once: int) -> Meter:
    """`sweep run` of sleeping trials on the cluster at `address`, which has room for so many at once."""
    Sleeping.epochs, Sleeping.epoch = epochs, epoch
    ray_tune.TrialActor = Sleeping
    found = StudyFolder.create(folder, study(10**5, epochs))
    mirror, meter = Follower(found.path, local_uri(found.path), "sleeping"), Meter(at_once)
    mirror.start()
    with opened(found, meter.hear) as search:
        meter.search = search
        ray_tune.run(search, address)
    mirror.stop(600)
    return meter


def throughput(folder: Path, address: str, places: int, epochs: int, epoch: float) -> dict[str, float]:
    _, rate = drive(folder, address, epochs, epoch, places).rates()
    return {"trials_an_hour": 3600 * rate / epochs}


def cost(folder: Path, address: str, at_once: int) -> dict[str, float]:
    """Of the driver, while so many trials run and none begins or ends."""
    meter = drive(folder, address, 1000, SLOW_EPOCH, at_once)
    return {"cpu": 1000 * meter.rates()[0], "memory": float(meter.memory)}


def simulated(folder: Path, at_once: int) -> dict[str, float]:
    """The same of the search alone: how much CPU time an epoch's message takes, as often as it would come."""
    found = StudyFolder.create(folder, study(at_once, 1000))
    mirror = Follower(found.path, local_uri(found.path), "sleeping")
    mirror.start()
    with opened(found) as search:
        before = _resident()
        trials: deque[Iterator[dict[str, Any]]] = deque()
        while len(trials) < at_once and (assignment := search.ask()):
            trials.append(sleeping(assignment.to_json(), 1000, 0.0))
            search.hear(next(trials[-1]))
        used, messages = time.process_time(), 10 * at_once
        for _ in range(messages):
            search.hear(next(trials[0]))
            trials.rotate(-1)
        mirror.stop(600)
        used = time.process_time() - used
        return {"cpu": 1000 * used / messages * at_once / SLOW_EPOCH, "memory": float(_resident() - before)}


@contextmanager
def cluster(nodes: int, places: int) -> Iterator[str]:
    """Ray nodes with so many places each, and a head with none, in folders of their own; the head's address."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))  # a short name: Ray's sockets lie below it
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder)}
    environment["RAY_memory_monitor_refresh_ms"] = "0"
    port = _free_port()
    head = ["--head", "--num-cpus=0", f"--port={port}", f"--ray-client-server-port={_free_port()}"]
    worker = [f"--address=127.0.0.1:{port}", f"--num-cpus={places}"]
    commands = [[*RAY, *head, "--include-dashboard=false", f"--temp-dir={folder / 'head'}"]]
    commands += [[*RAY, *worker, f"--temp-dir={folder / str(node)}"] for node in range(nodes)]
    try:
        for command in commands:
            subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
        yield f"127.0.0.1:{port}"
    finally:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            for path in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if f"RAY_TMPDIR={folder}".encode() in (path / "environ").read_bytes().split(b"\0"):
                        os.kill(int(path.name), kind)
            time.sleep(2)
        shutil.rmtree(folder, ignore_errors=True)


def measured(what: str, *given: float | str) -> dict[str, float]:
    """One of the measurements above, in a process of its own."""
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--measure", json.dumps([what, folder, *given])]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--places", type=int, default=4, help="of each node")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--epoch", type=float, default=6.0, help="seconds")
    parser.add_argument("--at-once", type=int, nargs="*", default=[10, 50, 500], help="trials, for the driver's cost")
    parser.add_argument("--processes", type=int, default=100, help="the most that this machine has room for")
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # what a process of its own does
    given = parser.parse_args()
    if given.measure:
        what, folder, *rest = json.loads(given.measure)
        print(json.dumps({"throughput": throughput, "cost": cost, "simulated": simulated}[what](Path(folder), *rest)))
        return
    print("| nodes | places | trials an hour | of what sleeping allows | efficiency |\n|---|---|---|---|---|")
    single, worst = 0.0, 1.0
    for nodes in given.nodes:
        places = nodes * given.places
        with cluster(nodes, given.places) as address:
            found = measured("throughput", address, places, given.epochs, given.epoch)["trials_an_hour"]
        single = single or found / nodes
        worst = min(worst, found / nodes / single)
        allowed = found * given.epochs * given.epoch / 3600 / places
        print(f"| {nodes} | {places} | {found:,.0f} | {allowed:.2f} | {found / nodes / single:.2f} |", flush=True)
    print("\n| at once | in processes | CPU ms/s | a trial | memory MB |\n|---|---|---|---|---|")
    for count in given.at_once:
        if real := count <= given.processes:
            with cluster(1, count) as address:
                found = measured("cost", address, count)
        else:
            found = measured("simulated", count)
        cpu, memory = found["cpu"], found["memory"] / 1e6
        print(f"| {count} | {'yes' if real else 'no'} | {cpu:.0f} | {cpu / count:.2f} | {memory:.0f} |", flush=True)
    sys.exit(1 if worst < LEAST_EFFICIENCY else 0)


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
