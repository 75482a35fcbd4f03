"""The side of orchestration.py that is ours: `sweep run`, trials excepted, which say a figure and end.

python benchmarks/orchestration_sweep.py TRIALS FOLDER TRACKING_URI
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweep.orchestration import ray_tune
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.orchestration.worker import Assignment
from sweep.study import Asha, Budget, Choice, Integer, LogUniform, Maximize, SearchSpace, Study, Uniform
from sweep.tracking.follower import Follower

METRIC = "validation/pgd_10/adversarial_accuracy"
FIRST = os.cpu_count() or 1  # trials, one at each place: they last until all places have their workers, as real ones do
WORKERS_BEGIN = 10.0  # seconds


def score(learning_rate: float, epsilon: float) -> float:
    """Something for the sampler to find."""
    return 1 / (1 + abs(learning_rate - 0.1) + 10 * abs(epsilon - 0.02))


class Idle(ray_tune.TrialActor):  # type: ignore[misc]
    """A trial without a trial."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._messages = idle(Assignment(**json.loads(config["assignment"])))


def idle(assignment: Assignment) -> Iterator[dict[str, Any]]:
    origin = {"trial": assignment.number, "node": "here", "pid": os.getpid()}
    yield origin | {"log": None}
    if assignment.number < FIRST:
        time.sleep(WORKERS_BEGIN)
    value = score(assignment.config["optimizer"]["learning_rate"], assignment.config["defense"]["epsilon"])
    yield origin | {"epoch": 1, "metrics": {METRIC: value, "gradient_evaluations": 1.0}}
    yield origin | {"end": "completed", "final": {METRIC: value}, "validity": None, "error": None}


class Clock:
    """When the first trial began behind those that wait for workers, and when the last one ended."""

    def __init__(self) -> None:
        self.first = self.last = self.cpu = math.nan
        self.ended = 0

    def hear(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "started" and event["trial"] == FIRST:
            self.first, self.cpu = time.monotonic(), time.process_time()
        if event["event"] == "ended":
            self.last, self.ended = time.monotonic(), self.ended + 1


def sweep(trials: int, folder: Path, uri: str) -> dict[str, float]:
    """`sweep run` of a study whose trials say a figure and end; seconds a trial."""
    ray_tune.TrialActor = Idle
    study, clock = _study(trials), Clock()
    study_folder = StudyFolder.create(folder, study)
    mirror = Follower(study_folder.path, uri, study.name)
    with opened(study_folder, clock.hear) as search:
        mirror.start()
        ray_tune.run(search)
    began, others = time.monotonic(), _cpu_of_ended_processes()
    unsent = mirror.stop(3600)
    drained = time.monotonic() - began
    assert not unsent, mirror.last_error
    assert clock.ended == trials
    measured = {"seconds": clock.last - clock.first + drained, "cpu": time.process_time() - clock.cpu}
    measured |= {"mirror": _cpu_of_ended_processes() - others}
    return {name: seconds / (trials - FIRST) for name, seconds in measured.items()}


def _cpu_of_ended_processes() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _study(trials: int) -> Study:
    return Study(
        name="idle",
        space=SearchSpace(
            dataset="digits",
            model={"name": "small_cnn", "width": Integer(4, 32)},
            threat_model={"name": "linf", "epsilon": 0.03},
            epochs=1,
            batch_size=Choice(64, 128, 256),
            optimizer={
                "name": "sgd",
                "learning_rate": LogUniform(1e-3, 0.5),
                "weight_decay": LogUniform(1e-5, 5e-3),
                "momentum": Uniform(0.5, 0.95),
            },
            defense={"name": "adversarial_training", "epsilon": Uniform(0.01, 0.04), "attack": {"name": "pgd"}},
        ),
        search_attack={"name": "pgd", "num_steps": 10},
        objective=Maximize(METRIC),
        sampler="tpe",
        early_stopping=Asha(resource="epochs", grace_period=1, reduction_factor=3),
        budget=Budget(trials=trials, gradient_evaluations=10**12),
    )


if __name__ == "__main__":
    print(json.dumps(sweep(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
