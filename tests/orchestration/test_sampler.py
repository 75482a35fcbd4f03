"""Optuna by ask and tell: real samplers over conditional spaces, and a study rebuilt from what the journal keeps."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState
from tiny_study import METRIC, ended, record, tiny

from sweep.domains import Choice, Integer, LogUniform, Uniform
from sweep.objective import AtLeast, Maximize, Minimize
from sweep.orchestration.sampler import VALIDITY, Sampler
from sweep.search_space import OneOf
from sweep.study import Study
from sweep.tracking.ledger import TrialRecord

CLEAN = "validation/clean_accuracy"
LOSS = "validation/clean_loss"
NUMBERS: dict[str, Any] = {  # all that cma_es can search
    "defense": {"name": "trades", "epsilon": Uniform(0.01, 0.2), "beta": LogUniform(1, 10)},
    "optimizer": {"name": "sgd", "learning_rate": LogUniform(1e-3, 0.3)},
}
FINITE: dict[str, Any] = {
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "batch_size": Integer(50, 52),
    "defense": OneOf(
        standard={},
        adversarial_training={"epsilon": Choice(0.05, 0.1), "attack": OneOf(fgsm={}, pgd={"num_steps": Choice(1, 2)})},
    ),
}
FINITE_SIZE = 3 * (1 + 2 * (1 + 2))


def value_of(config: dict[str, Any]) -> float:
    """A synthetic accuracy: best at a learning rate of 0.05, and better with adversarial training."""
    rate: float = config["optimizer"]["learning_rate"]
    bonus = 0.0 if config["defense"]["name"] == "standard" else 0.1
    return max(0.0, 0.6 - 0.1 * abs(math.log10(rate / 0.05)) + bonus)


def told(trial: TrialRecord, end: str = "completed") -> TrialRecord:
    """The trial after three epochs of a synthetic curve."""
    value = value_of(trial.config)
    curve = {
        epoch: {
            METRIC: value - (3 - epoch) / 10,
            CLEAN: 0.95 - value / 2,
            LOSS: 1 - value,
            "gradient_evaluations": 100.0 * epoch,
        }
        for epoch in (1, 2, 3)
    }
    return ended(trial, end, curve if end != "failed" else {})


def drive(sampler: Sampler, count: int, ends: tuple[str, ...] = ("completed",)) -> list[TrialRecord]:
    """Ask and tell `count` trials, whose ends go round."""
    done = []
    for number in range(count):
        trial = told(record(number, sampler.ask(number)), ends[number % len(ends)])
        sampler.tell(trial)
        done.append(trial)
    return done


def trials_in(folder: Path, name: str = "tiny") -> list[FrozenTrial]:
    """As optuna-dashboard would open them."""
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
    return optuna.load_study(study_name=name, storage=storage).get_trials()


def content(trial: FrozenTrial) -> tuple[Any, ...]:
    """All of a trial but when it was."""
    return (
        trial.number,
        trial.state,
        trial.values,
        trial.params,
        trial.distributions,
        trial.intermediate_values,
        trial.system_attrs,
        trial.user_attrs,
    )


STUDIES: dict[str, dict[str, Any]] = {
    "tpe": {},
    "gp": {},
    "nsga2": {},
    "random": {},
    "grid": {"space": FINITE},
    "cma_es": {"space": NUMBERS},
}


def study_for(sampler: str, **changes: Any) -> Study:
    return tiny(sampler=sampler, **{"startup_trials": 4, **STUDIES[sampler], **changes})


# gp fits a model at every proposal
EVERY = [pytest.param(name, marks=[pytest.mark.slow] if name == "gp" else []) for name in STUDIES]


@pytest.mark.parametrize("name", EVERY)
def test_each_sampler_proposes_within_the_space_and_learns_every_end(name: str, tmp_path: Path) -> None:
    study = study_for(name)
    ends = ("completed", "completed", "stopped", "completed", "diverged", "completed", "failed")
    trials = drive(Sampler(study, tmp_path), 14, ends)
    for trial in trials:
        assert study.space.constrain(trial.config) == (trial.params, {})
        study.trial_config(trial.config, trial.number)
    seen = trials_in(tmp_path)
    expected = {
        "completed": TrialState.COMPLETE,
        "stopped": TrialState.PRUNED,
        "diverged": TrialState.COMPLETE,
        "failed": TrialState.FAIL,
    }
    assert [found.state for found in seen] == [expected[str(trial.end)] for trial in trials]
    for trial, found in zip(trials, seen, strict=True):
        curve = {epoch: metrics[METRIC] for epoch, metrics in trial.reports.items()}
        assert found.intermediate_values == curve
        if trial.end == "completed":
            assert found.value == value_of(trial.config)
        elif trial.end == "diverged":
            assert found.value == 0.0
        assert found.params == trial.params


@pytest.mark.slow
def test_tpe_leaves_chance_behind(tmp_path: Path) -> None:
    (tmp_path / "random").mkdir()
    trials = drive(Sampler(study_for("tpe"), tmp_path), 40)
    chance = drive(Sampler(study_for("random"), tmp_path / "random"), 40)
    late = [value_of(trial.config) for trial in trials[20:]]
    assert sum(late) / 20 > sum(value_of(trial.config) for trial in chance) / 40 + 0.02


def test_what_is_enqueued_comes_first_and_the_sampler_fills_in_the_rest(tmp_path: Path) -> None:
    study = study_for(
        "tpe",
        enqueue=[
            {"defense": {"name": "adversarial_training", "attack": {"num_steps": 2}}, "epochs": 7},
            {"defense": "standard", "optimizer": {"learning_rate": 0.1}},
            {},
        ],
    )
    first, second, third, fourth = drive(Sampler(study, tmp_path), 4)
    assert first.config["defense"]["attack"]["num_steps"] == 2 and first.config["epochs"] == 7
    assert 1e-3 <= first.params["optimizer.learning_rate"] <= 0.3
    assert second.params == {"optimizer.learning_rate": 0.1, "defense": "standard"} and second.config["epochs"] == 3
    assert third.params.keys() >= {"defense"} and fourth.config["epochs"] == 3


def test_the_bounds_become_constraints_that_optuna_sees(tmp_path: Path) -> None:
    study = study_for("tpe", objective=Maximize(METRIC, subject_to={CLEAN: AtLeast(0.7)}))
    trials = drive(Sampler(study, tmp_path), 12, ("completed", "stopped", "diverged", "failed"))
    seen = trials_in(tmp_path)
    for trial, found in zip(trials, seen, strict=True):
        expected = (
            0.7 - (0.95 - value_of(trial.config) / 2) if trial.reports else 1.0
        )  # never measured: violated in full
        assert found.constraints == {CLEAN: pytest.approx(expected), VALIDITY: -1.0}
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "optuna.log")))
    best = optuna.load_study(study_name="tiny", storage=storage).best_trial
    allowed = [found for found in seen if found.state == TrialState.COMPLETE and found.constraints[CLEAN] <= 0]
    assert best.value == max(found.value or 0.0 for found in allowed)


@pytest.mark.parametrize("name", STUDIES)
def test_a_suspect_trial_is_told_as_one_that_breaks_a_bound(name: str, tmp_path: Path) -> None:
    study = study_for(name)
    for folder in ("live", "rebuilt"):
        (tmp_path / folder).mkdir()
    sampler = Sampler(study, tmp_path / "live")
    trials = []
    for number in range(8):
        trial = told(record(number, sampler.ask(number)))
        trial.validity = {"verdict": "suspect" if number % 2 else "valid", "suspect": ["V4"], "figures": {}}
        sampler.tell(trial)
        trials.append(trial)
    Sampler(study, tmp_path / "rebuilt", trials)
    for folder in ("live", "rebuilt"):
        honest, suspect = trials_in(tmp_path / folder)[::2], trials_in(tmp_path / folder)[1::2]
        if name == "cma_es":  # which knows no constraints
            assert {trial.value for trial in suspect} == {0.0} and all(trial.value for trial in honest)
        else:
            assert {trial.constraints[VALIDITY] for trial in honest} == {-1.0}
            assert {trial.constraints[VALIDITY] for trial in suspect} == {1.0}


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random"])
def test_two_goals(name: str, tmp_path: Path) -> None:
    objective = [Maximize(METRIC, subject_to={CLEAN: AtLeast(0.6)}), Minimize("gradient_evaluations")]
    sampler = Sampler(study_for(name, objective=objective), tmp_path)
    trials = drive(sampler, 14, ("completed", "completed", "completed", "stopped", "diverged", "failed"))
    seen = trials_in(tmp_path)
    for trial, found in zip(trials, seen, strict=True):
        if trial.end == "completed":
            assert found.values == [value_of(trial.config), 300.0]
        if trial.end == "diverged":
            assert found.values == [0.0, math.inf]  # of evaluations there is no worst: infinity ranks last
        assert found.state.is_finished() and found.intermediate_values == {}
    assert not {trial.number for trial in sampler.optuna.best_trials} & {4, 10}  # the diverged are on no front


def test_a_loss_that_diverged_is_never_the_best(tmp_path: Path) -> None:
    sampler = Sampler(study_for("tpe", objective=Minimize(LOSS)), tmp_path)
    trials = drive(sampler, 12, ("diverged", "completed", "completed"))
    assert sampler.optuna.best_value == min(1 - value_of(trial.config) for trial in trials if trial.end == "completed")
    assert [found.value for found in trials_in(tmp_path)[::3]] == [math.inf] * 4


@pytest.mark.parametrize("missing", [{}, {CLEAN: 0.9}, {METRIC: math.nan}])
def test_a_completed_trial_without_its_figure_is_told_as_failed(missing: dict[str, float], tmp_path: Path) -> None:
    sampler = Sampler(study_for("tpe", objective=[Maximize(METRIC), Maximize(CLEAN)]), tmp_path)
    sampler.tell(ended(record(0, sampler.ask(0)), "completed", {1: missing} if missing else {}))
    assert trials_in(tmp_path)[0].state == TrialState.FAIL


@pytest.mark.parametrize("name", EVERY)
def test_rebuilt_from_the_ledger_it_is_the_same_study(name: str, tmp_path: Path) -> None:
    bounds = {} if name == "cma_es" else {CLEAN: AtLeast(0.7)}
    study = study_for(name, objective=Maximize(METRIC, subject_to=bounds), enqueue=[{}])
    ends = ("completed", "completed", "stopped", "completed", "diverged", "failed")
    unbroken = Sampler(study, tmp_path)
    trials = drive(unbroken, 12, ends)
    trials.append(record(12, unbroken.ask(12)))  # in flight when the sweep dies
    # What the ledger is read back from is JSON.
    kept = [TrialRecord(**json.loads(json.dumps(vars(trial)))) for trial in trials]
    for trial in kept:
        trial.reports = {int(epoch): metrics for epoch, metrics in trial.reports.items()}
    before = [content(trial) for trial in trials_in(tmp_path)]
    rebuilt = Sampler(study, tmp_path, kept)
    after = [content(trial) for trial in trials_in(tmp_path)]
    assert after == before
    assert after[12][1] == TrialState.RUNNING
    if name == "nsga2":  # it draws from its parents in an order of its own
        return
    (tmp_path / "again").mkdir()
    unbroken = Sampler(study, tmp_path / "again")
    drive(unbroken, 12, ends)
    unbroken.ask(12)
    assert rebuilt.ask(13) == unbroken.ask(13)
    rebuilt.tell(told(kept[12]))
    unbroken.tell(told(kept[12]))
    assert rebuilt.ask(14) == unbroken.ask(14)


PROPOSALS = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from test_sampler import drive, study_for
from sweep.orchestration.sampler import Sampler
study = study_for("tpe")
print([trial.params for trial in drive(Sampler(study, Path(sys.argv[1])), 16)])
"""


@pytest.mark.slow  # two processes that import torch
def test_proposals_do_not_depend_on_pythons_hash_seed(tmp_path: Path) -> None:
    outputs = set()
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        command = [sys.executable, "-c", PROPOSALS, str(tmp_path / seed), str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        outputs.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(outputs) == 1


def test_the_grid_enumerates_everything_exactly_once(tmp_path: Path) -> None:
    study = study_for("grid", enqueue=[{"batch_size": 51, "defense": "standard"}])
    assert study.space.size == FINITE_SIZE
    trials = drive(Sampler(study, tmp_path), FINITE_SIZE, ("completed", "stopped", "failed", "diverged"))
    assert trials[0].params == {"batch_size": 51, "defense": "standard"}
    points = {json.dumps(trial.config, sort_keys=True) for trial in trials}
    assert len(points) == FINITE_SIZE


def test_the_grid_counts_trials_that_still_run_and_those_of_an_earlier_session(tmp_path: Path) -> None:
    study = study_for("grid")
    sampler = Sampler(study, tmp_path)
    trials = [record(number, sampler.ask(number)) for number in range(8)]  # eight at once
    for trial in trials[::2]:
        sampler.tell(told(trial))
    resumed = Sampler(study, tmp_path, trials)
    trials += [record(number, resumed.ask(number)) for number in range(8, FINITE_SIZE)]
    assert len({json.dumps(trial.config, sort_keys=True) for trial in trials}) == FINITE_SIZE


def test_a_lock_that_a_killed_process_left_delays_nothing(tmp_path: Path) -> None:
    log = tmp_path / "optuna.log"
    drive(Sampler(study_for("random"), tmp_path), 1)
    (tmp_path / "optuna.log.lock").symlink_to(log)
    notes = tmp_path / "optuna.log.notes"
    notes.write_text("not ours")
    began = time.monotonic()
    drive(Sampler(study_for("random"), tmp_path), 1)
    assert time.monotonic() - began < 25  # and not the 30 seconds after which Optuna takes it away
    assert notes.exists()


def test_two_studies_with_different_seeds_ask_differently(tmp_path: Path) -> None:
    first = drive(Sampler(study_for("random", seed=1), tmp_path), 3)
    second = drive(Sampler(study_for("random", seed=2), tmp_path), 3)
    again = drive(Sampler(study_for("random", seed=1), tmp_path), 3)
    assert [t.params for t in first] == [t.params for t in again] != [t.params for t in second]
