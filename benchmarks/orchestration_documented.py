"""The other side of orchestration.py: Ray Tune as its documentation puts it together.

python benchmarks/orchestration_documented.py documented|reused TRIALS FOLDER TRACKING_URI
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

METRIC = "validation/pgd_10/adversarial_accuracy"


def score(learning_rate: float, epsilon: float) -> float:
    """Something for the sampler to find."""
    return 1 / (1 + abs(learning_rate - 0.1) + 10 * abs(epsilon - 0.02))


class Trainable(tune.Trainable):  # type: ignore[misc]
    """A trial as a class, whose actor serves one after another."""

    def setup(self, config: dict[str, Any]) -> None:
        self.given = config

    def reset_config(self, config: dict[str, Any]) -> bool:
        self.given = config
        return True

    def step(self) -> dict[str, Any]:
        return {METRIC: score(self.given["learning_rate"], self.given["epsilon"]), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass


def train(config: dict[str, Any]) -> None:
    tune.report({METRIC: score(config["learning_rate"], config["epsilon"])})


def space(trial: Any) -> None:
    trial.suggest_int("width", 4, 32)
    trial.suggest_categorical("batch_size", (64, 128, 256))
    trial.suggest_float("learning_rate", 1e-3, 0.5, log=True)
    trial.suggest_float("weight_decay", 1e-5, 5e-3, log=True)
    trial.suggest_float("momentum", 0.5, 0.95)
    trial.suggest_float("epsilon", 0.01, 0.04)


class Clock(tune.Callback):  # type: ignore[misc]
    """When trials began and ended, and what the driver's CPU had done by then."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.cpu: list[float] = []

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.marks.append(time.monotonic())
        self.cpu.append(time.process_time())

    on_trial_complete = on_trial_start


def documented(trials: int, folder: Path, uri: str, reused: bool = False) -> dict[str, float]:
    """Ray Tune as its documentation puts it together; seconds a trial."""
    clock = Clock()
    ray.init(
        address="local", num_cpus=os.cpu_count(), include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    tuner = tune.Tuner(
        Trainable if reused else train,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(space, metric=METRIC, mode="max"),
            scheduler=ASHAScheduler(metric=METRIC, mode="max", grace_period=1, reduction_factor=3),
            num_samples=trials,
            reuse_actors=reused,
        ),
        run_config=tune.RunConfig(
            name="documented",
            storage_path=str(folder),
            verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=uri, experiment_name="documented"), clock],
        ),
    )
    results = tuner.fit()
    assert len(results) == trials and not results.errors
    ray.shutdown()
    measured = {"seconds": max(clock.marks) - min(clock.marks), "cpu": max(clock.cpu) - min(clock.cpu)}
    return {name: seconds / trials for name, seconds in measured.items()}


if __name__ == "__main__":
    print(json.dumps(documented(int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], reused=sys.argv[1] == "reused")))
