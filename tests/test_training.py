"""Training: what each option of a defense changes, the exact cost, and the end of what diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweep.attacks import Adversary
from sweep.attacks.fgsm import FGSM
from sweep.augmentation import augment
from sweep.configuration import TrialConfig
from sweep.defenses import Clock, Defense
from sweep.errors import Diverged
from sweep.evaluation import measure
from sweep.figures import metric_names, refuse_non_finite
from sweep.models.network import Network
from sweep.optimizers.sgd import SGD
from sweep.registry import KINDS, validated
from sweep.seeding import generator, layer_randomness
from sweep.training import Plan, State, _adversarial_copy, _augmented, train
from sweep.trial import Trial

TRAIN, VALIDATION, EPOCHS = 70, 40, 3
BASE: dict[str, Any] = {
    "dataset": {"name": "digits", "train_size": TRAIN, "validation_size": VALIDATION},
    "model": {"name": "small_cnn", "width": 4},
    "threat_model": {"name": "linf", "epsilon": 0.1},
    "defense": "standard",
    "epochs": EPOCHS,
    "batch_size": 32,
    "validation_attacks": ["fgsm"],
    "objective": [{"metric": "validation/fgsm/adversarial_accuracy"}],
}
PGD = {"name": "pgd", "num_steps": 2}


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


def hybrid(**fields: Any) -> dict[str, Any]:
    return {"name": "hybrid", "epsilon": 0.2, "attack": PGD} | fields


def trained(defense: Any, **fields: Any) -> Trial:
    trial = Trial(validated(TrialConfig, BASE | fields | {"defense": defense}, "test"))
    list(trial.run())
    return trial


def plan(defense: Any = "standard", **fields: Any) -> Plan:
    return Trial(validated(TrialConfig, BASE | fields | {"defense": defense}, "test")).plan


def series(trial: Trial, metric: str) -> list[float]:
    return [result.metrics[metric] for result in trial.results]


def same_network(first: Trial, second: Trial) -> bool:
    one, other = first.network.state_dict(), second.network.state_dict()
    return all(torch.equal(one[key], other[key]) for key in one)


# --- every defense is a special case


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
@pytest.mark.parametrize(
    ("alpha", "equivalent"), [(0.0, {"name": "adversarial_training", "epsilon": 0.2, "attack": PGD}), (1.0, "standard")]
)
def test_hybrid_at_its_ends_is_adversarial_and_standard_training(
    alpha: float, equivalent: Any, augmentation: str
) -> None:
    ends = hybrid(alpha_rule={"name": "fixed", "alpha": alpha}, epsilon_schedule="constant")
    one, other = trained(ends, augmentation=augmentation), trained(equivalent, augmentation=augmentation)
    assert same_network(one, other)
    for metric in ("validation/clean_accuracy", "validation/clean_loss", "validation/fgsm/adversarial_accuracy"):
        assert series(one, metric) == series(other, metric)


def test_feature_squeezing_that_squeezes_nothing_is_its_inner_defense() -> None:
    inner = {"name": "adversarial_training", "epsilon": 0.1, "attack": PGD}
    outer = trained({"name": "feature_squeezing", "bit_depth": 8, "training": inner})
    assert series(outer, "train/loss") == pytest.approx(series(trained(inner), "train/loss"), rel=1e-2)


# --- what moves from epoch to epoch


@pytest.mark.parametrize(
    ("fields", "factors"),
    [({}, [0.1, 0.4, 0.7]), ({"increase": "before"}, [0.4, 0.7, 1.0]), ({"epsilon_schedule": "constant"}, [1, 1, 1])],
)
def test_the_radius_is_the_schedule_s(fields: dict[str, Any], factors: list[float]) -> None:
    assert series(trained(hybrid(**fields)), "epsilon") == pytest.approx([0.2 * factor for factor in factors])


def test_a_radius_that_moves_by_steps_ends_each_epoch_higher() -> None:
    last_steps = [epoch + 2 / 3 for epoch in range(EPOCHS)]  # 70 examples in batches of 32 are 3 steps
    expected = [0.2 * (0.1 + 0.9 * progress / EPOCHS) for progress in last_steps]
    assert series(trained(hybrid(epsilon_update="step")), "epsilon") == pytest.approx(expected)


def test_the_learning_rate_moves_by_steps() -> None:
    falling = {"name": "linear", "start": 1.0, "end": 0.0}
    rates = series(trained("standard", learning_rate_schedule=falling), "learning_rate")
    assert rates == pytest.approx([0.01 * (1 - (epoch + 2 / 3) / EPOCHS) for epoch in range(EPOCHS)])


@pytest.mark.parametrize("measured_at", ["target", "current"])
def test_alpha_follows_the_measurements_with_one_epoch_s_lag(measured_at: str) -> None:
    trial = trained(hybrid(alpha_rule={"name": "paper_ratio", "measured_at": measured_at}), optimizer="adamw")
    expected = [0.5]
    for past in trial.state.history[:-1]:
        total = past.clean_accuracy + past.adversarial_accuracy
        expected.append(past.adversarial_accuracy / total if total else 0.5)
    assert series(trial, "alpha") == pytest.approx(expected)
    defense = trial.plan.defense
    epsilon = 0.2 if measured_at == "target" else 0.2 * 0.7
    how = defense.measurement(trial.results[-1].metrics["epsilon"])
    assert how is not None
    assert how[1] == pytest.approx(epsilon)
    again = measure(trial.network, trial.validation, how[0], trial.plan.threat_model, how[1], trial.config.seed)
    assert again == trial.state.history[-1]


def test_alpha_from_the_training_batches_costs_nothing() -> None:
    trial = trained(hybrid(alpha_rule={"name": "paper_ratio", "split": "train"}))
    past, total = trial.state.history[0], TRAIN * EPOCHS * 4
    assert past.clean_accuracy == trial.results[0].metrics["train/clean_accuracy"]
    assert past.adversarial_accuracy == trial.results[0].metrics["train/adversarial_accuracy"]
    assert trial.state.gradient_evaluations == total


# --- the exact cost


@pytest.mark.parametrize("name", KINDS["defense"])
def test_gradient_evaluations_are_counted_and_are_the_declared_ones(name: str) -> None:
    required = {key: 0.1 for key, field in KINDS["defense"][name].model_fields.items() if field.is_required()}
    trial = trained({"name": name, **required})
    defense = trial.plan.defense
    before, all_epochs = defense.preparation * TRAIN, declared(defense)
    assert trial.state.gradient_evaluations == before + all_epochs
    assert series(trial, "gradient_evaluations") == [before + all_epochs * epoch / 3 for epoch in (1, 2, 3)]
    judged = series(trial, "validation/gradient_evaluations")
    looks = max(defense.test_draws, 1)  # what is random at test is asked so often for one prediction
    correct = [looks * round(value * VALIDATION) for value in series(trial, "validation/clean_accuracy")]
    assert judged == [sum(correct[:epoch]) for epoch in (1, 2, 3)], "FGSM looks once at what is still correct"


@pytest.mark.parametrize(
    "fields",
    [
        {"batch_mode": "union"},
        {"examples": "epoch"},
        {"batch_mode": "union", "examples": "epoch"},
        {"alpha_attack": {"name": "pgd", "num_steps": 5}},
        {"attack": {"name": "pgd", "num_steps": 3, "num_restarts": 2}},
    ],
)
def test_every_way_of_the_hybrid_costs_what_it_declares(fields: dict[str, Any]) -> None:
    trial = trained(hybrid(**fields))
    assert trial.state.gradient_evaluations == declared(trial.plan.defense)


def declared(defense: Defense) -> float:
    measured = defense.measurement(0.1)
    alpha = measured[0].gradient_evaluations * VALIDATION if measured else 0
    return (defense.gradient_evaluations * TRAIN + alpha) * EPOCHS


# --- the options of the examples


def test_a_union_meets_twice_as_many_steps() -> None:
    trials = {mode: trained(hybrid(batch_mode=mode), optimizer="adamw") for mode in ("paired", "union")}
    counts = {name: trial.plan.optimizer.state_dict()["state"][0]["count"].item() for name, trial in trials.items()}
    assert counts == {"paired": 3 * EPOCHS, "union": 5 * EPOCHS}


def test_examples_of_an_epoch_are_made_by_the_parameters_as_they_stood() -> None:
    """With one batch an epoch nothing has moved since, so both ways are the same; with three they are not."""
    ways = [hybrid(attack="fgsm", examples=examples) for examples in ("batch", "epoch")]
    one, other = (trained(way, batch_size=TRAIN) for way in ways)
    assert series(one, "train/adversarial_loss") == pytest.approx(series(other, "train/adversarial_loss"), rel=1e-4)
    one, other = (trained(way) for way in ways)
    assert series(one, "train/adversarial_loss") != pytest.approx(series(other, "train/adversarial_loss"), rel=1e-4)


def test_the_epoch_s_copy_is_the_attack_on_every_training_image() -> None:
    given = plan(hybrid(attack="fgsm", examples="epoch"))
    copy = _adversarial_copy(given, Clock(1, 3), [], generator(0))
    images, labels = given.train.pixels(slice(None)), given.train.labels
    adversary = Adversary(given.threat_model, 0.2 * 0.4, generator(0))
    given.network.eval()
    assert torch.allclose(copy, FGSM().perturb(given.network, images, labels, adversary), atol=1e-6)


def test_an_augmented_pair_stays_a_pair() -> None:
    given = plan(hybrid(examples="epoch"), augmentation="crop_flip")
    rows = torch.tensor([5, 3, 60])
    pixels = given.train.pixels(slice(None))
    images, copies = _augmented(given, rows, 1 - pixels, generator(0))
    assert copies is not None
    assert torch.equal(images, augment(pixels[rows], "crop_flip", generator(0)))
    assert torch.equal(copies, augment(1 - pixels[rows], "crop_flip", generator(0)))


# --- layers that draw


def test_dropout_draws_from_the_trial_s_seed_and_not_from_the_global_stream() -> None:
    def weights(share: float) -> Tensor:
        with layer_randomness(0, "test"):
            core = nn.Sequential(nn.Flatten(), nn.Dropout(share), nn.Linear(64, 10))
        network = Network(core, [0.3], [0.4])
        optimizer = SGD().build(network.parameters())
        list(train(replace(plan(), network=network, optimizer=optimizer), State()))
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    torch.manual_seed(1)
    first = weights(0.5)
    torch.manual_seed(2)
    assert torch.equal(weights(0.5), first)
    assert not torch.equal(weights(0.0), first)


# --- what diverges


@pytest.mark.parametrize("name", KINDS["defense"])
def test_a_huge_learning_rate_is_a_divergence(name: str) -> None:
    required = {key: 0.1 for key, field in KINDS["defense"][name].model_fields.items() if field.is_required()}
    with pytest.raises(Diverged, match="not finite"):
        for result in train(replace(plan({"name": name, **required}), learning_rate=1e12), State()):
            assert all(math.isfinite(value) for value in result.metrics.values())


def test_a_network_that_breaks_in_the_last_step_is_never_reported() -> None:
    """One step, whose loss is finite: only the validation sees what it did."""
    given = replace(plan(batch_size=TRAIN), learning_rate=1e30)
    with pytest.raises(Diverged, match="not finite in epoch 1: validation/clean_loss"):
        next(train(given, State()))


def test_what_is_not_finite_is_named() -> None:
    refuse_non_finite({"a": 1.0, "b": 0.0}, "in epoch 1")
    with pytest.raises(Diverged, match=r"^not finite in epoch 7: b, c$"):
        refuse_non_finite({"a": 1.0, "b": math.nan, "c": -math.inf}, "in epoch 7")


# --- what is reported


@pytest.mark.parametrize("defense", ["standard", hybrid(), hybrid(batch_mode="union")])
def test_every_metric_is_finite_and_every_name_an_objective_may_use_is_right(defense: Any) -> None:
    trial = trained(defense, validation_attacks=["fgsm", PGD])
    metrics = trial.results[-1].metrics
    assert all(math.isfinite(value) for value in metrics.values())
    assert metric_names(trial.config.validation_attacks) <= metrics.keys()


def test_losses_are_means_over_the_epoch() -> None:
    trial = trained("standard", batch_size=TRAIN)
    fresh = plan(batch_size=TRAIN)
    logits = fresh.network(fresh.train.pixels(slice(None)))
    expected = torch.nn.functional.cross_entropy(logits, fresh.train.labels).item()
    metrics = trial.results[0].metrics
    assert metrics["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["train/clean_loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["train/clean_accuracy"] == (logits.argmax(1) == fresh.train.labels).double().mean().item()


def test_epochs_count_from_one_and_the_end_is_the_end() -> None:
    given, state = plan(), State()
    assert [result.epoch for result in train(given, state)] == [1, 2, 3]
    assert list(train(given, state)) == []
