"""What Optuna is shown of a long study, and what it holds, compared with the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from test_sampler import drive, study_for, told
from tiny_study import METRIC, record

from sweep.domains import LogUniform, Uniform
from sweep.errors import StudyError
from sweep.orchestration import optuna_study
from sweep.orchestration import sampler as sampler_module
from sweep.orchestration.sampler import Sampler
from sweep.orchestration.turns import Turn
from sweep.search_space import OneOf


def test_a_long_study_is_modelled_from_its_latest_and_best_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_study, "LATEST", 8)
    monkeypatch.setattr(optuna_study, "BEST", 3)
    study = study_for("tpe")
    (tmp_path / "again").mkdir()
    sampler = Sampler(study, tmp_path)
    trials = drive(sampler, 30, ("completed", "stopped", "completed", "diverged"))
    goal = study.objective[0]
    best = sorted(trials, key=lambda trial: trial.rank(goal), reverse=True)[:3]
    with sampler.optuna.thinned(True):
        seen = {trial.number for trial in sampler.optuna._get_trials()}
    assert seen == {trial.number for trial in (*best, *trials[-8:])} and len(seen) < 12
    assert len(sampler.optuna._get_trials()) == 30
    assert Sampler(study, tmp_path / "again", trials).ask(30) == sampler.ask(30)


def test_what_is_shown_depends_on_no_order_and_is_enough_for_the_startup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials that run at once end in any order; failed ones teach nothing; a long startup needs long memory."""
    monkeypatch.setattr(optuna_study, "LATEST", 4)
    monkeypatch.setattr(optuna_study, "BEST", 2)
    study = study_for("tpe", startup_trials=12)
    (tmp_path / "again").mkdir()
    sampler = Sampler(study, tmp_path)
    trials = [record(number, sampler.ask(number)) for number in range(30)]
    for trial in reversed(trials):
        sampler.tell(told(trial, "failed" if trial.number % 3 == 0 else "completed"))
    with sampler.optuna.thinned(True):
        shown = {trial.number for trial in sampler.optuna._get_trials()}
    assert {number for number in range(30) if number % 3}.issuperset(shown)
    assert len(shown) >= 12 and max(shown) == 29
    proposal = sampler.ask(30)
    assert proposal == Sampler(study, tmp_path / "again", trials).ask(30)
    assert proposal[2]  # what TPE notes of a proposal that it modelled


@pytest.mark.parametrize("changes", [{}, {"compare": "defense"}])
def test_what_is_spared_changes_no_proposal(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty trials of three branches, the best of them suspect, as Optuna's own sampler and trials propose them."""
    monkeypatch.setattr(optuna_study, "LATEST", 12)
    monkeypatch.setattr(optuna_study, "BEST", 4)
    ours = proposals(tmp_path / "ours", **changes)
    monkeypatch.setattr(sampler_module, "_Tpe", optuna.samplers.TPESampler)
    monkeypatch.setattr(optuna_study, "_told", lambda trial: trial)
    monkeypatch.delattr(optuna_study.OptunaStudy, "_pop_waiting_trial_id")
    assert proposals(tmp_path / "plain", **changes) == ours
    assert len({params["defense"] for _, params, _ in ours}) == 3


@pytest.mark.parametrize("changes", [{}, {"compare": "defense"}])
def test_no_proposal_looks_at_every_trial(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("ten thousand trials would be looked at for each of ten thousand")

    monkeypatch.setattr(optuna.storages.journal.JournalStorage, "get_all_trials", refuse)
    assert len(proposals(tmp_path / "ours", **changes)) == 40


def proposals(folder: Path, **changes: Any) -> list[Any]:
    """With three trials in flight."""
    folder.mkdir()
    schedule = OneOf(constant={}, linear={"start": 0.1, "ramp": Uniform(0.1, 0.9)})
    branches: dict[str, Any] = {"standard": {}, "trades": {"epsilon": 0.1, "beta": LogUniform(1, 10)}}
    branches["hybrid"] = {"epsilon": Uniform(0.02, 0.2), "epsilon_schedule": schedule}
    rate = {"name": "sgd", "learning_rate": LogUniform(1e-3, 0.3)}
    sampler = Sampler(study_for("tpe", space={"optimizer": rate, "defense": OneOf(**branches)}, **changes), folder)
    found: list[Any] = []
    running = []
    for number in range(40):
        turn = Turn(tuple(branches)[number % 3], number // 3) if changes else None
        found.append(sampler.ask(number, turn))
        running.append(record(number, found[-1]))
        if len(running) == 3:
            trial = told(running.pop(0), ("completed", "stopped", "completed", "diverged", "failed")[number % 5])
            trial.validity = {"verdict": "suspect" if trial.defense == "hybrid" else "valid", "suspect": []}
            sampler.tell(trial)
    return found


def test_what_optuna_holds_is_compared_with_the_ledger_trial_by_trial(tmp_path: Path) -> None:
    sampler = Sampler(study_for("tpe"), tmp_path)
    trials = drive(sampler, 4, ("completed", "stopped", "diverged", "failed"))
    trials.append(record(4, sampler.ask(4)))
    assert sampler.states() == {"complete": 2, "pruned": 1, "fail": 1, "running": 1}
    assert list(sampler.disagreements(trials)) == []
    assert list(sampler.disagreements(trials[:4])) == ["the journal has 4 trials, Optuna 5"]
    assert trials[0].best is not None
    trials[0].best["metrics"] = {METRIC: 0.123}
    trials[1].end, trials[4].end = "completed", "failed"
    trials[3].params = {**trials[3].params, "defense": "none"}
    first, second, third, fourth = sampler.disagreements(trials)
    assert first.startswith("trial 0 came to [0.123], for Optuna to [0.")
    assert second == "trial 1 is completed, for Optuna it is pruned"
    assert third.startswith("trial 3 has the parameters {") and fourth.endswith("for Optuna it is running")


def test_trials_of_another_space_are_refused(tmp_path: Path) -> None:
    trials = drive(Sampler(study_for("tpe"), tmp_path), 1)
    trials[0].params["optimizer.momentum"] = 0.5
    with pytest.raises(StudyError, match=r"trial 0 .* no parameter 'optimizer.momentum'.*restore both from one copy"):
        Sampler(study_for("tpe"), tmp_path, trials)
    del trials[0].params["optimizer.momentum"]
    trials[0].params["optimizer.learning_rate"] = 7.0
    with pytest.raises(StudyError, match="trial 0 of the journal is none of this study's space"):
        Sampler(study_for("tpe"), tmp_path, trials)
