"""Learning from another study: what is taken, what is left out and said, and that its trials are nobody's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_study import METRIC, asked, complete, events, finish, report, searching, tiny

from sweep.analysis.results import trial_rows
from sweep.domains import Choice, LogUniform
from sweep.errors import StudyError
from sweep.objective import Maximize
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.sampler import VALIDITY
from sweep.orchestration.warm_start import warm_start
from sweep.search_space import OneOf
from sweep.study import Budget

ATTACK: dict[str, Any] = {"name": "pgd", "num_steps": Choice(1, 2)}
WIDER = OneOf(
    standard={}, adversarial_training={"epsilon": 0.05, "attack": ATTACK}, trades={"epsilon": 0.05, "beta": 6.0}
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Thirteen trials: completed, but one that diverged, one that failed and one in flight."""
    root = tmp_path_factory.mktemp("source")
    with searching(root, tiny(budget=Budget(trials=13))) as search:
        for number in range(10):
            complete(search, 0.1, 0.2, 0.3 + number / 100)
        for end in ("diverged", "failed"):
            number = asked(search).number
            report(search, number, 1, 0.9)
            finish(search, number, end)
        asked(search)
    return StudyFolder(root / "tiny")


def test_finished_trials_are_taken_into_the_sampler_and_are_nobodys_results(
    source: StudyFolder, tmp_path: Path
) -> None:
    study = tiny(sampler="tpe", startup_trials=5, budget=Budget(trials=2))
    found = warm_start(study, source)
    assert found.differences == [] and found.left_out == {"not finished, or failed": 2}
    folder = StudyFolder.create(tmp_path / "new", study, found.event)
    for _ in range(2):  # as begun, and as resumed, without the other study
        with searching(tmp_path / "new", study) as search:
            held = search.sampler.optuna.get_trials(deepcopy=False)
            assert [trial.value for trial in held[:10]] == [0.3 + number / 100 for number in range(10)]
            assert held[10].value == 0.0 and len(search.ledger.inherited) == 11
            complete(search, 0.1, 0.1, 0.2)
    assert search.ledger.counts() == {"completed": 2} and search.ask() is None
    assert [trial.number for trial in search.ledger.ranked(search.goal)] == [0, 1]
    assert len(trial_rows(search.ledger)) == 2
    assert [event["event"] for event in events(folder.path)].count("inherited") == 1
    assert events(folder.path, "inherited")[0]["fingerprint"] == source.study().fingerprint


def test_the_sampler_models_them(source: StudyFolder, tmp_path: Path) -> None:
    """With ten startup trials a fresh study begins at random, and one that inherited eleven does not."""
    study = tiny(sampler="tpe", startup_trials=10)
    StudyFolder.create(tmp_path / "warm", study, warm_start(study, source).event)
    with searching(tmp_path / "warm", study) as search:
        warm = asked(search).config
        assert search.ledger.trials[0].attributes  # what TPE notes of a proposal that it modelled
    with searching(tmp_path / "cold", study) as search:
        assert asked(search).config != warm and not search.ledger.trials[0].attributes


def test_a_suspect_trial_stays_suspect(tmp_path: Path) -> None:
    with searching(tmp_path / "source") as search:
        complete(search, 0.3)
        number = asked(search).number
        report(search, number, 1, 0.9)
        validity = {"verdict": "suspect", "suspect": ["V8"], "investigate": [], "figures": {}}
        search.hear({"trial": number, "end": "completed", "final": {}, "error": None, "validity": validity})
    study = tiny(sampler="tpe")
    StudyFolder.create(tmp_path / "new", study, warm_start(study, StudyFolder(tmp_path / "source" / "tiny")).event)
    with searching(tmp_path / "new", study) as search:
        held = search.sampler.optuna.get_trials(deepcopy=False)
        assert [trial.constraints[VALIDITY] for trial in held] == [-1.0, 1.0]


def test_the_difference_of_the_spaces_is_said(source: StudyFolder) -> None:
    rates = sorted(trial.params["optimizer.learning_rate"] for trial in source.ledger() if trial.end == "completed")
    narrow = {"name": "sgd", "learning_rate": LogUniform(rates[3] * 0.999, 0.3)}
    found = warm_start(tiny(sampler="tpe", space={"optimizer": narrow, "defense": WIDER, "epochs": 4}), source)
    assert len(found.event["trials"]) in (7, 8)  # the diverged trial may lie below as well
    (reasons,) = ({reason for reason in found.left_out if "learning_rate" in reason},)
    assert reasons and all("is not in the space" in reason for reason in reasons)
    assert [line.partition(":")[0] for line in found.differences] == [
        "changed defense",
        "changed optimizer.learning_rate",
        "constant epochs",
    ]
    assert found.differences[-1] == "constant epochs: 3 there, 4 here"
    wider = tiny(sampler="tpe", space={"batch_size": Choice(20, 50), "defense": "standard"})
    found = warm_start(wider, source)
    assert "added batch_size: 20, 50" in found.differences
    assert "removed defense: standard, adversarial_training" in found.differences
    assert all(trial["params"]["batch_size"] == 50 for trial in found.event["trials"])  # a constant there


INCOMPARABLE = [
    ({"space": {"threat_model": {"name": "linf", "epsilon": 0.1}}}, "they differ in threat_model"),
    ({"space": {"dataset": {"name": "digits", "train_size": 300}}}, "they differ in dataset"),
    ({"objective": Maximize(METRIC, subject_to={"validation/clean_accuracy": {"at_least": 0.5}})}, "objective"),
    ({"select": "last"}, "they differ in select"),
    ({"compare": "defense"}, "a comparison has no warm start"),
    ({"sampler": "random"}, "the sampler 'random' learns from no trial"),
    ({"sampler": "nsga2"}, "the sampler 'nsga2' learns from no trial of another study; warm starts are for tpe and gp"),
    ({"space": {"optimizer": {"name": "sgd", "learning_rate": LogUniform(1e-7, 1e-6)}}}, "none of the trials of"),
]


@pytest.mark.parametrize(("changes", "said"), INCOMPARABLE, ids=[said for _, said in INCOMPARABLE])
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], said: str, source: StudyFolder) -> None:
    with pytest.raises(StudyError, match=said):
        warm_start(tiny(**{"sampler": "tpe", **changes}), source)
