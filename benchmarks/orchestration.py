"""What a trial costs beside its arithmetic: a sweep's, and that of the pattern which Ray Tune's documentation shows.

    python benchmarks/orchestration.py --trials 100 1000 --documented 30

Trials that do nothing: each reports once and ends. Both sides draw the same six parameters by TPE, stop early by ASHA
and log to MLflow, into an SQLite database or (`--server`) through a server. `documented` is a function trainable with
OptunaSearch, ASHAScheduler and MLflowLoggerCallback; `reused` is the same with `reuse_actors`, as a class; `sweep` is
what `sweep run` does, trials excepted. Each run is a process of its own, and they take turns for `--rounds` rounds.

Milliseconds a trial are of wall time, from the first trial's beginning to the last one's end, everything in MLflow; and
of the driver's CPU, MLflow's client included, which in a sweep is in a process of its own (told beside, with its
import). A sweep's time is taken from when each place has its worker, which its first trials wait for: real ones last
longer than a worker's start. The documented pattern starts one for each trial, so there that is part of the cost. Exit
code 1 where it takes less than 40 times as long as the longest sweep.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SERVER = ("-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1")
HERE = Path(__file__).parent
LEAST_RATIO = 40  # of the documented pattern's milliseconds to the sweep's


@contextmanager
def store(folder: Path, served: bool) -> Iterator[str]:
    """An MLflow to log to, whose tables are there already."""
    database = f"sqlite:///{folder}/mlflow.db"
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", database], check=True, capture_output=True)
    if not served:
        yield database
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *SERVER, "--port", str(port), "--backend-store-uri", database]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        for _ in range(240):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def measured(arm: str, trials: int, served: bool) -> dict[str, float]:
    """Milliseconds a trial by name, in a process of its own."""
    with tempfile.TemporaryDirectory() as root, store(Path(root), served) as uri:
        script = ["orchestration_sweep.py"] if arm == "sweep" else ["orchestration_documented.py", arm]
        given = [sys.executable, str(HERE / script[0]), *script[1:], str(trials), root, uri]
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(given, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found = json.loads(done.stdout.splitlines()[-1])
    return {name: 1000 * float(seconds) for name, seconds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000], help="of the sweep, one run for each")
    parser.add_argument("--documented", type=int, default=30, help="trials of the documented pattern")
    parser.add_argument("--reused", type=int, default=100, help="trials of the pattern that reuses its actors")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", action="store_true", help="log through an MLflow server")
    given = parser.parse_args()
    runs = [("documented", given.documented), ("reused", given.reused), *(("sweep", count) for count in given.trials)]
    runs = [(arm, count) for arm, count in runs if count]
    found: dict[tuple[str, int], list[dict[str, float]]] = {run: [] for run in runs}
    for _ in range(given.rounds):
        for arm, count in runs:
            found[arm, count].append(measured(arm, count, given.server))
    print("| | trials | ms a trial, median | least | most | CPU of the driver, median | of the mirror |")
    print("|---|---|---|---|---|---|---|")
    for (arm, count), times in found.items():
        wall, cpu, mirror = ([each.get(name, math.nan) for each in times] for name in ("seconds", "cpu", "mirror"))
        beside = "" if arm != "sweep" else f"{statistics.median(mirror):.1f}"
        row = (statistics.median(wall), min(wall), max(wall), statistics.median(cpu))
        print(f"| {arm} | {count} | {' | '.join(f'{value:.1f}' for value in row)} | {beside} |")
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if given.documented and given.trials:
        walls = [statistics.median(each["seconds"] for each in times) for times in found.values()]
        print(f"documented / sweep: {walls[0] / walls[-1]:.1f}")
        sys.exit(walls[0] < LEAST_RATIO * walls[-1])


if __name__ == "__main__":
    main()
