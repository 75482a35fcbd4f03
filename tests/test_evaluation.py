"""Evaluation: verdicts per example, worst cases, confidence and calibration, each by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweep.attacks import Adversary, misclassified
from sweep.attacks.cw_pgd import CWPGD
from sweep.attacks.fgsm import FGSM
from sweep.attacks.pgd import PGD
from sweep.datasets import Split
from sweep.evaluation import (
    BATCH,
    Verdicts,
    calibration_error,
    confidence,
    evaluate,
    fraction,
    measure,
    mixed_accuracy,
    predict,
)
from sweep.models.network import Network
from sweep.models.small_cnn import SmallCNN
from sweep.seeding import layer_randomness
from sweep.threat_models.linf import Linf

THREAT_MODEL = Linf(epsilon=0.05)
SIZE = BATCH + 120  # two batches, the second one short


def network() -> Network:
    with layer_randomness(1, "test"):
        return Network(SmallCNN(width=2).build(1, (6, 6), 4), [0.5], [0.05])


def split(size: int = SIZE, seed: int = 0) -> Split:
    """Labels are the network's own predictions, but every fifth is another class."""
    images = torch.randint(0, 256, (size, 1, 6, 6), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    labels = predict(network(), Split(images, torch.zeros(size, dtype=torch.int64))).argmax(1)
    labels[::5] = (labels[::5] + 1) % 4
    return Split(images, labels)


class Fixed(nn.Module):
    """The logits of a table, where an image's one pixel is its row: nothing that an attack could climb."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: Tensor) -> Tensor:
        pixel = images.flatten(1)
        return self.logits[(255 * pixel[:, 0]).round().long()] + 0 * pixel


def table(labels: list[int]) -> Split:
    """One image a row of the table."""
    return Split(torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1), torch.tensor(labels))


# --- verdicts


def test_the_worst_case_is_taken_for_each_example() -> None:
    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    robust = {"a": torch.tensor([True, False, True, True]), "b": torch.tensor([False, True, True, True])}
    verdicts = Verdicts(logits, torch.zeros(4, dtype=torch.int64), robust)
    metrics = verdicts.metrics("validation")
    assert metrics["validation/a/adversarial_accuracy"] == metrics["validation/b/adversarial_accuracy"] == 0.75
    assert metrics["validation/worst_case/adversarial_accuracy"] == 0.25, "not the least of the means"
    assert metrics["validation/clean_accuracy"] == 0.75
    assert metrics["validation/clean_loss"] == pytest.approx(
        (3 * math.log(1 + math.exp(-1)) + math.log(1 + math.e)) / 4
    )


def test_one_attack_is_its_own_worst_case_and_is_reported_once() -> None:
    verdicts = Verdicts(torch.eye(2), torch.arange(2), {"a": torch.tensor([True, False])})
    assert "validation/worst_case/adversarial_accuracy" not in verdicts.metrics("validation")
    assert verdicts.worst_case.tolist() == [True, False]


def test_verdicts_are_those_of_the_attack_on_each_example() -> None:
    model, data = network().eval(), split()
    verdicts = evaluate(model, data, [FGSM()], THREAT_MODEL, seed=0)
    images = data.pixels(slice(None))
    clean = ~misclassified(model, images, data.labels)
    points = FGSM().perturb(model, images, data.labels, Adversary(THREAT_MODEL, 0.05, torch.Generator()))
    assert torch.equal(verdicts.clean, clean)
    assert torch.equal(verdicts.robust["fgsm"], clean & ~misclassified(model, points, data.labels))
    assert fraction(clean) == pytest.approx(0.8)
    assert 0.05 < fraction(verdicts.robust["fgsm"]) < 0.75


def test_no_attack_helps_and_the_worst_case_is_below_all() -> None:
    verdicts = evaluate(network(), split(), [FGSM(), PGD(num_steps=3), CWPGD(num_steps=3)], THREAT_MODEL, seed=0)
    for robust in verdicts.robust.values():
        assert (robust <= verdicts.clean).all()
        assert (verdicts.worst_case <= robust).all()
    assert fraction(verdicts.worst_case) < min(fraction(robust) for robust in verdicts.robust.values())


def test_attacks_see_only_what_is_still_correct() -> None:
    model, data = network(), split()
    evaluate(model, data, [FGSM()], THREAT_MODEL, seed=0)
    assert model.gradient_evaluations == int((~misclassified(model, data.pixels(slice(None)), data.labels)).sum())


def test_a_seed_gives_the_same_verdicts_and_another_other_ones() -> None:
    attack = PGD(num_steps=1, relative_step_size=0.2)
    first, again, other = (
        evaluate(network(), split(), [attack], THREAT_MODEL, seed).robust[attack.label] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_batch_does_not_depend_on_the_batch_before_it() -> None:
    data, attack = split(), PGD(num_steps=1, relative_step_size=0.2, num_restarts=3)
    spoiled = Split(data.images, data.labels.clone())
    spoiled.labels[1:BATCH] = (spoiled.labels[1:BATCH] + 2) % 4  # the first batch needs no second restart now
    first, second = (
        evaluate(network(), some, [attack], THREAT_MODEL, 0).robust[attack.label] for some in (data, spoiled)
    )
    assert torch.equal(first[BATCH:], second[BATCH:])
    assert not torch.equal(first[:BATCH], second[:BATCH])


def test_batches_have_random_starts_of_their_own() -> None:
    data = split(BATCH)
    twice = Split(torch.cat([data.images] * 2), torch.cat([data.labels] * 2))
    attack = PGD(num_steps=1, relative_step_size=0.2)
    robust = evaluate(network(), twice, [attack], THREAT_MODEL, 0).robust[attack.label]
    assert not torch.equal(robust[:BATCH], robust[BATCH:])


def test_the_network_is_left_in_the_mode_that_it_was_in() -> None:
    model = network().train()
    evaluate(model, split(20), [FGSM()], THREAT_MODEL, seed=0)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_count_as_broken(bad: float) -> None:
    model = Network(Fixed([[2.0, 0.0], [bad, 0.0], [2.0, 0.0]]), [0.0], [1.0])
    verdicts = evaluate(model, table([0, 0, 0]), [FGSM()], THREAT_MODEL, seed=0)
    assert verdicts.clean.tolist() == verdicts.robust["fgsm"].tolist() == [True, False, True]


def test_a_network_that_turns_non_finite_under_attack_is_broken() -> None:
    class Fragile(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            moved = images.flatten(1)[:, :1]
            return torch.cat([torch.where(moved > 0.5, torch.nan, 2 - moved), moved * 0], 1)

    data = Split(torch.full((2, 1, 1, 1), 127, dtype=torch.uint8), torch.tensor([0, 0]))
    verdicts = evaluate(Network(Fragile(), [0.0], [1.0]), data, [PGD(num_steps=8)], Linf(epsilon=0.2), seed=1)
    assert verdicts.clean.all()
    assert fraction(verdicts.robust["pgd_8"]) < 1


# --- what alpha is made of


def test_measure_by_hand() -> None:
    model, data = network().eval(), split()
    images = data.pixels(slice(None))
    points = FGSM().perturb(model, images, data.labels, Adversary(THREAT_MODEL, 0.02, torch.Generator()))
    found = measure(model, data, FGSM(), THREAT_MODEL, 0.02, seed=0)
    assert found.clean_accuracy == pytest.approx(0.8)
    assert found.adversarial_accuracy == fraction(~misclassified(model, points, data.labels))
    assert found.clean_loss == pytest.approx(cross_entropy(model(images), data.labels).item(), rel=1e-5)
    assert found.adversarial_loss == pytest.approx(cross_entropy(model(points), data.labels).item(), rel=1e-4)
    assert found.adversarial_loss > found.clean_loss


def test_measure_follows_the_radius_that_it_is_given() -> None:
    small, large = (measure(network(), split(), FGSM(), THREAT_MODEL, epsilon, seed=0) for epsilon in (0.001, 0.1))
    assert small.adversarial_accuracy > large.adversarial_accuracy
    assert small.clean_accuracy == large.clean_accuracy


# --- confidence


def test_confidence_is_split_by_who_is_right() -> None:
    """Logits that no attack can move: softmax of log-probabilities gives those probabilities back."""
    probabilities = [[0.95, 0.05], [0.05, 0.95], [0.55, 0.45], [0.45, 0.55]]
    model = Network(Fixed([[math.log(p) for p in row] for row in probabilities]), [0.0], [1.0])
    figures = confidence(model, table([0, 0, 0, 1]), FGSM(), THREAT_MODEL, 0, "validation")
    assert figures == pytest.approx(
        {
            "validation/fgsm/confidence_right": (0.95 + 0.55 + 0.55) / 3,
            "validation/fgsm/confidence_wrong": 0.95,
            "validation/fgsm/calibration_error": (0.9 + 0.9) / 4,  # 1 of 2 right at 0.95, 2 of 2 at 0.55
            "validation/fgsm/negative_log_likelihood": -(math.log(0.95 * 0.05 * 0.55 * 0.55)) / 4,
        },
        rel=1e-5,
    )


def test_confidence_leaves_out_the_mean_of_nothing() -> None:
    model = Network(Fixed([[3.0, 0.0]]), [0.0], [1.0])
    figures = confidence(model, table([0]), FGSM(), THREAT_MODEL, 0, "validation")
    assert "validation/fgsm/confidence_wrong" not in figures
    assert all(math.isfinite(value) for value in figures.values())


@pytest.mark.parametrize(
    ("highest", "right", "error"),
    [
        ([0.8, 0.8, 0.8, 0.8, 0.8], [True, True, True, True, False], 0.0),
        ([1.0, 1.0], [False, False], 1.0),
        ([0.95, 0.55], [True, True], (0.05 + 0.45) / 2),
        ([0.81, 0.85], [True, False], abs(1 - 0.81 - 0.85) / 2),  # one bin: 12/15 to 13/15
    ],
)
def test_calibration_error_by_hand(highest: list[float], right: list[bool], error: float) -> None:
    assert calibration_error(torch.tensor(highest), torch.tensor(right)) == pytest.approx(error, abs=1e-6)


def test_mixed_accuracy_is_linear_in_the_share() -> None:
    assert [mixed_accuracy(0.9, 0.5, share) for share in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.7, 0.5])
