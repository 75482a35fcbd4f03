"""A trial's configuration: whole, checked at once, and known by its fingerprint."""

from __future__ import annotations

from typing import Any

import pytest

from sweep.configuration import TrialConfig, fingerprint
from sweep.errors import ConfigurationError
from sweep.registry import validated

PLAIN: dict[str, Any] = {
    "dataset": "digits",
    "model": "small_cnn",
    "threat_model": {"name": "linf", "epsilon": 0.1},
    "defense": "standard",
    "epochs": 3,
}


def config(**changes: Any) -> TrialConfig:
    return validated(TrialConfig, {**PLAIN, **changes}, "trial")


def mistakes(**changes: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        config(**changes)
    return list(caught.value.problems)


def test_its_json_holds_every_default_and_reads_back_the_same() -> None:
    written = config().to_json()
    assert written["batch_size"] == 128
    assert written["optimizer"]["name"] == "sgd" and "momentum" in written["optimizer"]
    assert written["validation_attacks"][0]["num_steps"] == 10
    again = validated(TrialConfig, written, "trial")
    assert again.to_json() == written and again.fingerprint == config().fingerprint


def test_the_short_and_the_long_form_are_one_configuration() -> None:
    long = config(dataset={"name": "digits"}, defense={"name": "standard"}, batch_size=128, seed=0)
    assert long.fingerprint == config().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 4},
        {"seed": 1},
        {"threat_model": {"name": "linf", "epsilon": 0.1000001}},
        {"threat_model": {"name": "l2", "epsilon": 0.1}},
        {"model": {"name": "small_cnn", "width": 17}},
        {"optimizer": {"name": "sgd", "nesterov": True}},
        {"validation_attacks": ["fgsm", {"name": "pgd", "num_steps": 10}]},
        {"select": "last"},
    ],
)
def test_any_change_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert config(**change).fingerprint != config().fingerprint


def test_a_fingerprint_is_of_the_content_not_of_its_order() -> None:
    assert (
        fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1}) != fingerprint({"a": 1, "b": [2, 1]})
    )
    assert fingerprint({"a": 1}) == "015abd7f5cc5"  # sha256 of {"a":1}
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(float("nan"))


def test_what_a_trial_measures_of_its_own_training_is_no_goal() -> None:
    """Its radius is searched: with next to none, any network is robust."""
    (said,) = mistakes(objective=[{"metric": "train/adversarial_accuracy"}])
    assert said.startswith("objective: train/adversarial_accuracy is measured as the trial chose to train")


def test_second_derivatives_are_not_compiled() -> None:
    said = ["compile: gradient_regularization needs second derivatives, which torch.compile does not give"]
    assert mistakes(compile=True, defense="gradient_regularization") == said
    assert config(compile=True).compile


def test_an_attack_is_refused_where_it_means_nothing() -> None:
    said = ["carlini_l2 means nothing under linf: it is judged under l2"]
    assert mistakes(final_attacks=["carlini_l2"]) == said
    trained = {"name": "adversarial_training", "epsilon": 0.1, "attack": "carlini_l2"}
    assert mistakes(defense=trained) == said
    assert mistakes(defense={"name": "feature_squeezing", "training": trained}) == said
    assert mistakes(defense={"name": "hybrid", "epsilon": 0.1, "alpha_attack": "carlini_l2"}) == said


def test_a_learning_rate_cannot_follow_accuracies() -> None:
    assert "only epsilon may" in mistakes(learning_rate_schedule={"name": "adaptive", "start": 0.1})[0]


def test_two_attacks_of_one_name_are_refused() -> None:
    double = [{"name": "pgd", "momentum": decay} for decay in (0.5, 1.0)]
    assert mistakes(final_attacks=double) == ["final_attacks: two attacks would both report as 'pgd_10_momentum'"]


def test_attacks_that_need_more_classes_are_named() -> None:
    dlr = {"name": "pgd", "num_steps": 5, "loss": "dlr"}
    random = {"name": "auto_attack", "version": "random"}
    found = config(
        validation_attacks=["pgd", dlr], final_attacks=[random], test_attacks=[{"name": "apgd", "loss": "dlr"}]
    )
    assert found.unanswerable(3) == []
    assert found.unanswerable(2) == [
        "pgd_5_dlr needs at least 3 classes, and digits has 2: give it another loss",
        "auto_attack_random needs at least 3 classes, and digits has 2: give it another loss",
        "apgd_100_dlr needs at least 3 classes, and digits has 2: give it another loss",
    ]


def test_an_objective_that_no_trial_reports_is_refused() -> None:
    goal = {"metric": "validation/pgd_20/adversarial_accuracy", "subject_to": {"clean_accuracy": {"at_least": 0.9}}}
    first, second = mistakes(objective=[goal])
    assert first.startswith(
        "objective: no trial will report this: unknown metric 'validation/pgd_20/adversarial_accuracy'"
    )
    assert "did you mean 'validation/pgd_10/adversarial_accuracy'?" in first
    assert "unknown metric 'clean_accuracy'" in second


def test_several_attacks_report_their_worst_case() -> None:
    goal = [{"metric": "validation/worst_case/adversarial_accuracy"}]
    assert mistakes(objective=goal)
    assert config(objective=goal, validation_attacks=["fgsm", {"name": "pgd"}]).objective[0].metric == goal[0]["metric"]


def test_text_is_not_a_number_and_a_number_is_not_text() -> None:
    assert mistakes(epochs="3", batch_size=12.5, seed=True) == [
        "epochs: must be a valid integer, got '3'",
        "batch_size: must be a valid integer, got 12.5",
        "seed: must be a valid integer, got True",
    ]
