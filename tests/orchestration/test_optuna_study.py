"""What Optuna is shown of a long study, and what it holds, compared with the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_sampler import drive, study_for, told
from tiny_study import METRIC, record

from sweep.errors import StudyError
from sweep.orchestration import optuna_study
from sweep.orchestration.sampler import Sampler


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
