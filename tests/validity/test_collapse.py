"""Catastrophic overfitting: noticed from the epochs' figures, and stopped, noted or left alone as the study says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.configuration import TrialConfig
from sweep.errors import Collapsed
from sweep.orchestration.worker import Assignment, messages
from sweep.registry import validated
from sweep.trial import Trial
from sweep.validity import collapse

# Against one step at a large radius: the accuracy under that step runs away from the accuracy under many.
ONE_STEP: dict[str, Any] = {
    "dataset": "digits",
    "model": {"name": "small_cnn", "width": 16},
    "threat_model": {"name": "linf", "epsilon": 0.3},
    "defense": {"name": "adversarial_training", "epsilon": 0.3, "attack": "fgsm"},
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "validation_attacks": ["fgsm"],
    "objective": [{"metric": "validation/fgsm/adversarial_accuracy"}],
    "epochs": 7,
}
TIMINGS = ("seconds", "validation/seconds", "peak_memory_mb")


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


def config(**fields: Any) -> TrialConfig:
    return validated(TrialConfig, ONE_STEP | fields, "test")


def lasting(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in (*TIMINGS, collapse.METRIC)}


def test_the_study_says_what_happens(tmp_path: Path) -> None:
    marked = list(Trial(config()).run())
    assert all(collapse.METRIC in result.metrics for result in marked), "one step cannot see it, so PGD always looks"
    first = next(result.epoch for result in marked if collapse.is_collapse(result.metrics))
    assert 1 < first < 7 and marked[first - 1].metrics[collapse.METRIC] > 0.2

    ignored = list(Trial(config(catastrophic_overfitting="go_on")).run())
    figures = [[lasting(result.metrics) for result in results] for results in (marked, ignored)]
    assert figures[0] == figures[1], "looking changes nothing of what is learnt"
    assert not any(collapse.METRIC in result.metrics for result in ignored)

    stopping = config(catastrophic_overfitting="stop").to_json()
    *told, end = messages(Assignment(0, stopping, str(tmp_path), 0))
    assert [message["epoch"] for message in told if "epoch" in message] == list(range(1, first + 1))
    assert end["end"] == "stopped" and end["final"] is None
    assert end["error"]["class"] == "Collapsed" and f"overfitting in epoch {first}" in end["error"]["message"]

    resumed = Trial(config(catastrophic_overfitting="stop"), tmp_path)
    with pytest.raises(Collapsed, match=f"in epoch {first}"):
        list(resumed.run(reported=first))


def test_a_judge_of_many_steps_is_asked_only_when_it_fell() -> None:
    watched = config(validation_attacks=[{"name": "pgd", "num_steps": 10}], objective=[{"metric": NAME}])
    trial = Trial(watched)

    def gap(best: float, now: float, **fields: Any) -> float | None:
        changed = watched.model_copy(update=fields)
        return collapse.measured_gap(changed, trial.network, trial.validation, [{NAME: best}, {}], {NAME: now})

    assert gap(0.6, 0.45) is None
    spent = trial.network.gradient_evaluations
    assert gap(0.6, 0.3) == pytest.approx(0.0, abs=0.2), "an untrained network has no robustness to lose"
    assert trial.network.gradient_evaluations - spent <= 11 * 100
    assert gap(0.6, 0.3, catastrophic_overfitting="go_on") is None
    assert gap(0.6, 0.3, defense=validated(TrialConfig, ONE_STEP | {"defense": "standard"}, "test").defense) is None


NAME = "validation/pgd_10/adversarial_accuracy"
