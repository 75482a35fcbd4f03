"""Ten thousand trials without training: what a long study costs its driver, and how soon it is resumed.

    python benchmarks/simulation.py --trials 10000 --curves $SWEEP_DATA_DIR/learning_curves/real_at_curves.csv

Each simulated trial replays one of 88 real learning curves of adversarial training, chosen by its parameters, through
the very search of a sweep: sampler, early stopping, journal, ledger and mirror (which here counts what it is sent).
Then a new process resumes the study. Exit code 1 where that takes 10 s or more, or a trial leaves 20 KB or more in
memory.
"""

from __future__ import annotations

import argparse
import csv
import gc
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import Search, opened
from sweep.orchestration.worker import Assignment
from sweep.study import Asha, AtLeast, Budget, Choice, Integer, LogUniform, Maximize, OneOf, SearchSpace, Study, Uniform
from sweep.tracking.mirror import Destination, JournalMirror

METRIC = "validation/pgd_10/adversarial_accuracy"
EPOCHS = 27  # rungs at 1, 3, 9 and 27
AT_ONCE = 16  # trials in flight
LONGEST_RESUME = 10.0  # seconds
MOST_MEMORY = 20_000  # bytes a trial
Curve = list[dict[str, float]]


class Counting(JournalMirror):
    """A mirror whose other side takes everything and keeps only the number."""

    poll_interval = 0.2
    is_new = False
    taken = 0

    def send(self, events: Sequence[dict[str, Any]]) -> Sequence[str]:
        self.taken += len(events)
        return ()

    def _connect(self) -> Destination:
        return self

    def _explain(self, error: Exception) -> str:
        return str(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--curves", type=Path, required=True, help="real_at_curves.csv")
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--folder", help="where the study is written meanwhile; none: the system's temporary folder")
    parser.add_argument("--resume", type=Path, help=argparse.SUPPRESS)  # what the second process does
    arguments = parser.parse_args()
    if arguments.resume:
        resume(arguments.resume)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        grown = simulate(Path(root), study(arguments.trials, arguments.sampler), curves(arguments.curves))
        command = [
            sys.executable,
            __file__,
            "--curves",
            str(arguments.curves),
            "--resume",
            str(Path(root) / "simulated"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout, end="")
    seconds = float(done.stdout.split()[2])
    sys.exit(1 if seconds >= LONGEST_RESUME or grown >= MOST_MEMORY else 0)


def study(trials: int, sampler: str) -> Study:
    """A space like those of search_spaces/, with eight to eleven parameters in three branches."""
    attack: dict[str, Any] = {"name": "pgd", "num_steps": Choice(3, 5, 7, 10)}
    schedule = OneOf(constant={}, linear={"start": 0.0, "ramp": Uniform(0.1, 0.9)})
    common: dict[str, Any] = {"epsilon": Uniform(2 / 255, 12 / 255), "attack": attack, "epsilon_schedule": schedule}
    return Study(
        name="simulated",
        space=SearchSpace(
            dataset="digits",
            model={"name": "small_cnn", "width": Integer(4, 32)},
            threat_model={"name": "linf", "epsilon": 8 / 255},
            epochs=EPOCHS,
            batch_size=Choice(64, 128, 256),
            optimizer={
                "name": "sgd",
                "learning_rate": LogUniform(1e-3, 0.5),
                "weight_decay": LogUniform(1e-5, 5e-3),
                "momentum": Uniform(0.5, 0.95),
            },
            defense=OneOf(standard={}, adversarial_training=common, trades={**common, "beta": LogUniform(1, 10)}),
        ),
        search_attack={"name": "pgd", "num_steps": 10},
        objective=Maximize(METRIC, subject_to={"validation/clean_accuracy": AtLeast(0.4)}),
        sampler=sampler,
        early_stopping=Asha(resource="epochs", grace_period=1, reduction_factor=3),
        budget=Budget(trials=trials, gradient_evaluations=10**12),
    )


def curves(path: Path) -> list[Curve]:
    """The real curves, the best last, each thinned out to `EPOCHS` epochs."""
    runs: dict[tuple[str, str], Curve] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            numbers = {name: float(text) for name, text in row.items() if name not in ("source", "run") and text}
            runs.setdefault((row["source"], row["run"]), []).append(numbers)
    long = [run for run in runs.values() if len(run) >= EPOCHS and all("test_robust_acc" in row for row in run)]
    thinned = [[run[(len(run) - 1) * k // (EPOCHS - 1)] for k in range(EPOCHS)] for run in long]
    return sorted(thinned, key=lambda run: max(row["test_robust_acc"] for row in run))


def replayed(assignment: Assignment, known: list[Curve]) -> Iterator[dict[str, Any]]:
    """A trial's messages. The nearer its learning rate is to 0.1, the better the curve; standard training is worst."""
    config = assignment.config
    quality = 1 - abs(math.log10(config["optimizer"]["learning_rate"] / 0.1)) / 2
    quality *= 0.1 if config["defense"]["name"] == "standard" else 1
    curve = known[min(max(int(quality * len(known)), 0), len(known) - 1)]
    for epoch, row in enumerate(curve[assignment.reported :], start=assignment.reported + 1):
        metrics = {f"train/{name.removeprefix('train_')}": value for name, value in row.items()}
        if not all(map(math.isfinite, row.values())):  # some of the real ones diverged
            error = {"class": "Diverged", "message": f"not finite in epoch {epoch}"}
            yield {"trial": assignment.number, "end": "diverged", "final": None, "error": error}
            return
        metrics |= {METRIC: row["test_robust_acc"], "validation/clean_accuracy": row["test_acc"]}
        metrics |= {"gradient_evaluations": 1197.0 * epoch, "epsilon": 0.03, "alpha": 0.5, "seconds": row["epoch"]}
        yield {"trial": assignment.number, "epoch": epoch, "metrics": metrics}
    final = {f"validation/{name}/adversarial_accuracy": row["test_robust_acc"] for name in ("fgsm", "worst_case")}
    yield {"trial": assignment.number, "end": "completed", "final": final, "error": None}


def simulate(root: Path, study: Study, known: list[Curve]) -> float:
    """Run the study, and say what it cost; returns the memory that a trial leaves, in bytes."""
    folder, trials = StudyFolder.create(root, study), study.budget.trials
    mirror = Counting(folder.path, "counted")
    memory: dict[int, int] = {}
    asking: deque[float] = deque(maxlen=100)
    began = time.monotonic()
    mirror.start()
    with opened(folder) as search:
        running: deque[Iterator[dict[str, Any]]] = deque()
        while True:
            if len(running) < AT_ONCE:
                started = time.thread_time()
                assignment = search.ask()
                asking.append(time.thread_time() - started)
                if assignment is not None:
                    search.started(assignment.number, "here", os.getpid())
                    running.append(replayed(assignment, known))
                    _say(search, trials, asking, memory)
                elif not running:
                    break
                else:
                    asking.pop()
            if search.hear(next(running[0])):
                running.rotate(-1)
            else:
                running.popleft()
        counts = dict(search.ledger.counts())
    unsent = mirror.stop(60)
    data = folder.journal.read_bytes()
    size, events = len(data), data.count(b"\n")
    first, last = min(memory), max(memory)
    grown = (memory[last] - memory[first]) / (last - first)
    print(f"{trials} trials in {time.monotonic() - began:.0f} s: {counts}")
    print(f"memory: {grown / 1000:.1f} KB a trial, between trial {first} and trial {last}")
    print(f"journal: {size / 1e6:.1f} MB, {size / trials / 1000:.1f} KB a trial, {events} events")
    print(f"mirror: {mirror.taken} events taken, {unsent} bytes unsent", flush=True)
    return grown


def _say(search: Search, trials: int, asking: deque[float], memory: dict[int, int]) -> None:
    """At some trials: what the last hundred proposals took, and how large the process is."""
    number = len(search.ledger.trials)
    if number in {trials // 10, trials // 4, trials // 2, trials}:
        gc.collect()
        memory[number] = _resident()
        median = sorted(asking)[len(asking) // 2]
        print(
            f"trial {number}: {1000 * median:.1f} ms of CPU an ask, {memory[number] / 1e6:.0f} MB resident", flush=True
        )


def resume(path: Path) -> None:
    """Open the study again, and say how long that took."""
    before = _resident()
    began, used = time.monotonic(), time.process_time()
    with opened(StudyFolder(path)) as search:
        seconds, used = time.monotonic() - began, time.process_time() - used
        states = dict(search.sampler.states())
        print(f"resumed in {seconds:.2f} s ({used:.2f} s of CPU), {(_resident() - before) / 1e6:.0f} MB")
        print(f"  {dict(search.restored)}; Optuna {states}")


def _resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    main()
