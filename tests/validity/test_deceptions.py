"""Figures that deceive although every attack is sound: too few images, images that were trained on, networks that tell
who asks, or remember what they were shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.evaluation import evaluate
from sweep.preview import preview
from sweep.registry import validated
from sweep.search_space import SearchSpace
from sweep.study import Budget, Maximize, Study
from sweep.trial import Trial
from sweep.validity import CHECKS, Known, Subject, asked

SPACE = {
    "model": {"name": "small_cnn", "width": 4},
    "threat_model": {"name": "linf", "epsilon": 0.1},
    "defense": "standard",
    "epochs": 2,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}
MNIST = {"dataset": "mnist", "threat_model": {"name": "linf", "epsilon": 0.3}}
FGSM = {"metric": "validation/fgsm/adversarial_accuracy"}


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    threads = torch.get_num_threads()
    found = Trial(config())
    list(found.run())
    yield found
    torch.set_num_threads(threads)


def config(validation_size: int = 100) -> TrialConfig:
    dataset = {"name": "digits", "train_size": 300, "validation_size": validation_size}
    return validated(TrialConfig, SPACE | {"dataset": dataset}, "test")


def subject(trial: Trial) -> Subject:
    """What the checks look at when a trial has finished."""
    split, ball = trial.validation, trial.config.threat_model
    verdicts = evaluate(trial.network, split, trial.config.validation_attacks, ball, trial.config.seed)
    known = Known(trial._built_anew, trial.plan.train, [split])
    return Subject(trial.config, trial.network, split, verdicts, trial.results, trial.selected.epoch, known)


def outcome(id: str, on: Subject) -> str:
    figure = CHECKS[id].measure(on)
    assert figure is not None
    return CHECKS[id].outcome(figure)


def for_a_gradient(_module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    """Who wants a gradient is told of the opposite classes."""
    return logits.flip(1) if inputs[0].requires_grad else logits


def memory() -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Whatever comes near an image of the first batch that was shown is taken for that image."""
    shown: list[Tensor] = []

    def recall(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        images = inputs[0].detach()
        shown.append(images.clone())
        apart = (images[:, None] - shown[0][None]).abs().flatten(2).amax(2)
        nearest = torch.where((apart.amin(1) < 0.8)[:, None, None, None], shown[0][apart.argmin(1)], images)
        return (inputs[0] + (nearest - images),)  # with the gradient of the identity

    return recall


def test_an_honest_network_passes(trial: Trial) -> None:
    on = subject(trial)
    assert [outcome(id, on) for id in ("V2", "V27", "V28", "V29")] == ["pass"] * 4


def test_a_network_that_tells_who_wants_a_gradient_is_found(trial: Trial) -> None:
    with trial.network.core.register_forward_hook(for_a_gradient):
        assert outcome("V2", subject(trial)) == "suspect"


def test_a_network_that_remembers_what_it_was_shown_is_found(trial: Trial) -> None:
    before = subject(trial).verdicts
    with trial.network.core.register_forward_pre_hook(memory()):
        on = subject(trial)
        assert on.verdicts.worst_case.equal(on.verdicts.clean) and not before.worst_case.equal(before.clean)
        assert [outcome(id, on) for id in ("V2", "V27")] == ["pass", "suspect"]


def test_accuracies_on_few_images_are_doubted_and_on_hardly_any_not_believed(trial: Trial) -> None:
    for size, expected in [(1, "suspect"), (24, "suspect"), (25, "investigate"), (99, "investigate"), (100, "pass")]:
        verdicts = evaluate(trial.network, trial.validation, [], trial.config.threat_model, 0)
        few = replace(verdicts, labels=verdicts.labels[:size])
        assert outcome("V28", Subject(trial.config, trial.network, trial.validation, few)) == expected
    told = CHECKS["V28"].explain(0.5)
    assert "enough images: 0.5 standard error" in told and "dataset.validation_size" in told


@pytest.mark.parametrize(("size", "doubted"), [(1, True), (99, True), (100, False)])
def test_a_preview_doubts_few_images(size: int, doubted: bool) -> None:
    study = Study(
        name="few",
        space=SearchSpace(dataset={"name": "digits", "validation_size": size}, **SPACE),
        objective=(Maximize("validation/pgd_10/adversarial_accuracy"),),
        budget=Budget(trials=1),
    )
    assert any("validation_size" in doubt for doubt in preview(study).doubts) == doubted


@pytest.mark.parametrize(("epsilon", "doubted"), [(0.1 / 255, True), (1 / 255, False)])
def test_a_preview_doubts_a_radius_below_half_a_grey_level(epsilon: float, doubted: bool) -> None:
    study = Study(
        name="faint",
        space=SearchSpace(dataset="digits", **SPACE | {"threat_model": {"name": "linf", "epsilon": epsilon}}),
        objective=(Maximize("validation/pgd_10/adversarial_accuracy"),),
        budget=Budget(trials=1),
    )
    assert any("divided by 255 twice" in doubt for doubt in preview(study).doubts) == doubted


def test_images_that_were_trained_on_are_found(trial: Trial) -> None:
    train, validation, on = trial.plan.train, trial.validation, subject(trial)
    leaked = Split(torch.cat([train.images, validation.images[:3]]), torch.cat([train.labels, validation.labels[:3]]))

    def share(seen: Split, *held_out: Split) -> float | None:
        return CHECKS["V29"].measure(replace(on, known=Known(trial._built_anew, seen, held_out)))

    assert share(leaked, validation) == pytest.approx(0.03)
    assert share(train, validation, train) == 1, "of test images too"
    assert share(train, validation, validation) == 1, "test images that the search was judged by"
    assert CHECKS["V29"] in asked(trial.config), "it costs a hash an image"


@pytest.mark.parametrize(
    ("changed", "left_out"),
    [
        ({}, {"V19", "V22", "V24"}),
        ({"defense": {"name": "feature_squeezing"}}, {"V22", "V24"}),
        ({"defense": {"name": "adversarial_training", "epsilon": 0.1}}, {"V19", "V24"}),
        (MNIST | {"validation_attacks": ["fgsm"], "objective": [FGSM]}, {"V9", "V19", "V22"}),
    ],
)
def test_only_what_arises_is_asked(changed: dict[str, Any], left_out: set[str]) -> None:
    fast = {check.id for check in CHECKS.values() if check.level == "fast"}
    found = validated(TrialConfig, SPACE | {"dataset": "digits"} | changed, "test")
    assert {check.id for check in asked(found)} == fast - left_out
