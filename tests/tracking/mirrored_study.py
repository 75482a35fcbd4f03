"""A study as a sweep writes it, what MLflow shows of it, and a real MLflow server that can be killed and frozen."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from sweep.tracking.journal import FILE_NAME, Journal

mlflow: Any = pytest.importorskip("mlflow")

PATIENCE = 240.0  # seconds for anything that a busy machine may take its time over
CLEAN, ADVERSARIAL = "validation/clean_accuracy", "validation/pgd_10/adversarial_accuracy"
CONFIG = {
    "seed": 7,
    "defense": {"name": "hybrid", "epsilon": 0.1, "attack": {"name": "pgd", "num_steps": 7, "random_start": True}},
    "widths": [16, 32],
    "note": "x" * 600,
}


class Sweep:
    """Writes what a sweep writes."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / FILE_NAME)

    def session(self, number: int = 1, torch: str = "2.13") -> None:
        self.journal.append("session", session=number, host="node-1", pid=1, versions={"torch": torch})

    def asked(self, trial: int) -> None:
        self.journal.append("asked", trial=trial, config=CONFIG, params={"defense.epsilon": 0.1}, origin="sampler")
        self.journal.append("started", trial=trial, attempt=1, node="node-2", pid=2)

    def reported(self, trial: int, epoch: int) -> None:
        metrics = {CLEAN: 0.9, ADVERSARIAL: epoch / 10}
        self.journal.append("reported", trial=trial, epoch=epoch, metrics=metrics, decision="continue")

    def ended(
        self,
        trial: int,
        end: str = "completed",
        error: dict[str, str] | None = None,
        validity: dict[str, Any] | None = None,
    ) -> None:
        best = {"epoch": 2, "metrics": {ADVERSARIAL: 0.2}} if end in ("completed", "stopped") else None
        final = {ADVERSARIAL: 0.15} if end == "completed" else None
        self.journal.append("ended", trial=trial, end=end, best=best, final=final, error=error, validity=validity)

    def whole(self, trial: int) -> None:
        self.asked(trial)
        for epoch in range(3):
            self.reported(trial, epoch)
        self.ended(trial)

    def closed(self, reason: str = "budget") -> None:
        self.journal.append("closed", reason=reason)


class Shown:
    """What MLflow holds for a study."""

    def __init__(self, uri: str, study: str = "digits") -> None:
        self.client = mlflow.MlflowClient(uri)
        experiment = self.client.get_experiment_by_name(study)
        assert experiment is not None
        self.experiment = experiment
        runs = list(self.client.search_runs([experiment.experiment_id], max_results=1000))
        self.parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        self.children = {int(run.data.tags["sweep.trial"]): run for run in runs if run not in self.parents}
        assert len(self.parents) + len(self.children) == len(runs), "a trial has two runs"

    def experiments(self) -> list[str]:
        return sorted(experiment.name for experiment in self.client.search_experiments())

    def history(self, trial: int, name: str) -> list[tuple[int, float]]:
        points = self.client.get_metric_history(self.children[trial].info.run_id, name)
        return sorted((point.step, point.value) for point in points)

    def everything(self) -> Any:
        names = [CLEAN, ADVERSARIAL, f"best/{ADVERSARIAL}", f"final/{ADVERSARIAL}"]
        histories = {trial: [self.history(trial, name) for name in names] for trial in self.children}
        return histories, [
            (run.info.status, run.data.to_dictionary()) for run in [*self.parents, *self.children.values()]
        ]


def free_port() -> int:
    """One that nobody else is given until it is used: systems give those above 32768, and Ray 10002 to 19999."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def listens(host: str, port: int) -> bool:
    """Whether anything does there."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


class Server:
    """`mlflow server` on this machine, over a database of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        options += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        options += ["--artifacts-destination", str(self.folder / "files")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [sys.executable, "-m", "mlflow", "server", *options]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        until(self.answers)

    def answers(self) -> bool:
        return listens("127.0.0.1", self.port)

    def freeze(self, signal_number: int = signal.SIGSTOP) -> None:
        """It accepts connections, and answers nothing, until `thaw`."""
        assert self.process is not None
        os.killpg(self.process.pid, signal_number)

    def thaw(self) -> None:
        self.freeze(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.process = None

    def runs(self) -> int:
        with closing(sqlite3.connect(f"file:{self.folder}/mlflow.db?mode=ro", uri=True)) as database:
            return int(database.execute("select count(*) from runs").fetchone()[0])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)
