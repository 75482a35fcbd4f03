"""The hybrid defense: its loss, its radius and its weight by hand, and what each of its options changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy

from sweep.alpha_rules import Measurement
from sweep.attacks.fgsm import FGSM
from sweep.attacks.pgd import PGD
from sweep.defenses import Clock, Step
from sweep.defenses.hybrid import Hybrid
from sweep.models.batch_norm import SplitBatchNorm2d, split_batch_norm
from sweep.models.network import Network
from sweep.models.resnet18 import ResNet18
from sweep.models.small_cnn import SmallCNN
from sweep.schedules.linear import Linear
from sweep.seeding import layer_randomness
from sweep.threat_models.linf import Linf

IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
COPIES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8)
HISTORY = [Measurement(0.9, 0.3, 0.3, 2.0), Measurement(0.8, 0.2, 0.5, 3.0)]


def hybrid(**fields: Any) -> Hybrid:
    return Hybrid.model_validate({"epsilon": 0.2, "attack": {"name": "pgd", "num_steps": 2}, **fields})


def network() -> Network:
    with layer_randomness(1, "test"):
        return Network(SmallCNN(width=4).build(1, (8, 8), 10), [0.5], [0.1])


def split_network() -> Network:
    with layer_randomness(1, "test"):
        core = split_batch_norm(ResNet18(width=2).build(1, (8, 8), 10))
    return Network(core, [0.5], [0.1])


def step(model: Network, alpha: float = 0.25, **rest: Any) -> Step:
    return Step(
        network=model,
        images=IMAGES,
        labels=LABELS,
        threat_model=Linf(epsilon=0.2),
        epsilon=torch.tensor(0.2),
        alpha=torch.tensor(alpha),
        generator=torch.Generator().manual_seed(5),
        **rest,
    )


def losses_of(model: Network, images: Tensor) -> Tensor:
    return cross_entropy(model(images), LABELS, reduction="none").detach()


# --- the loss


def test_paired_loss_is_the_weighted_sum_of_both_means() -> None:
    model = network()
    clean, adversarial = losses_of(model, IMAGES), losses_of(model, COPIES)
    found = hybrid().loss(step(model, adversarial=COPIES))
    assert found.total.item() == pytest.approx((0.25 * clean.mean() + 0.75 * adversarial.mean()).item(), rel=1e-6)
    assert found.clean is not None
    assert found.adversarial is not None
    assert torch.allclose(found.clean, clean)
    assert torch.allclose(found.adversarial, adversarial)


def test_union_weighs_each_example_so_that_the_expectation_is_the_paired_loss() -> None:
    model, copies = network(), torch.tensor([True, False, False, True, False, True, False, False])
    clean, adversarial = losses_of(model, IMAGES), losses_of(model, COPIES)
    found = hybrid(batch_mode="union").loss(step(model, adversarial=COPIES, is_adversarial=copies))
    expected = (2 * 0.25 * clean[~copies].sum() + 2 * 0.75 * adversarial[copies].sum()) / 8
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert found.clean is not None
    assert found.adversarial is not None
    assert (len(found.clean), len(found.adversarial)) == (5, 3)
    other = hybrid(batch_mode="union").loss(step(model, adversarial=COPIES, is_adversarial=~copies))
    paired = hybrid().loss(step(model, adversarial=COPIES))
    assert ((found.total + other.total) / 2).item() == pytest.approx(paired.total.item(), rel=1e-6)


@pytest.mark.parametrize("flags", [[False] * 8, [True] * 8])
def test_a_union_batch_may_be_all_of_one_kind(flags: list[bool]) -> None:
    found = hybrid(batch_mode="union").loss(step(network(), is_adversarial=torch.tensor(flags)))
    assert found.total.isfinite()


def test_union_attacks_the_copies_and_only_them() -> None:
    model, copies = network(), torch.tensor([True] * 3 + [False] * 5)
    hybrid(batch_mode="union").loss(step(model, is_adversarial=copies))
    assert model.gradient_evaluations == 2 * 3


def test_paired_meets_every_example_once_and_union_twice() -> None:
    paired, union = hybrid().order(5, torch.Generator()), hybrid(batch_mode="union").order(5, torch.Generator())
    assert sorted(paired.tolist()) == list(range(5))
    assert sorted(union.tolist()) == list(range(10))


# --- the radius


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.1, 0.28, 0.46, 0.64, 0.82]),
        ({"increase": "before"}, [0.28, 0.46, 0.64, 0.82, 1.0]),
        ({"epsilon_schedule": "constant"}, [1.0] * 5),
        ({"epsilon_schedule": {"name": "linear", "start": 0.1, "ramp": 0.4}}, [0.1, 0.55, 1.0, 1.0, 1.0]),
    ],
)
def test_the_radius_begins_at_a_tenth_and_moves_by_epochs(fields: dict[str, Any], expected: list[float]) -> None:
    radii = [hybrid(**fields).epsilon_at(Clock(epoch, 5, step=3, steps=4), ()) for epoch in range(5)]
    assert radii == pytest.approx([0.2 * factor for factor in expected])


def test_the_radius_may_move_by_steps() -> None:
    defense = hybrid(epsilon_update="step", epsilon_schedule=Linear(start=0.1))
    radii = [defense.epsilon_at(Clock(epoch, 2, step, 4), ()) for epoch in range(2) for step in range(4)]
    assert radii == pytest.approx([0.2 * (0.1 + 0.9 * number / 8) for number in range(8)])


def test_an_adaptive_radius_follows_the_accuracies() -> None:
    defense = hybrid(epsilon_schedule={"name": "adaptive", "start": 0.5, "threshold": 0.6, "increment": 0.25})
    assert defense.epsilon_at(Clock(3, 10), [0.7, 0.5, 0.6]) == pytest.approx(0.2)
    assert defense.epsilon_at(Clock(3, 10), [0.5, 0.5, 0.7]) == pytest.approx(0.2 * 0.75)


# --- the weight


def test_alpha_by_hand_from_the_measurements() -> None:
    paper = hybrid()
    assert [paper.alpha_at(Clock(epoch, 5), HISTORY[:epoch]) for epoch in range(3)] == pytest.approx([0.5, 0.25, 0.2])
    assert hybrid(alpha_rule={"name": "fixed", "alpha": 0.7}).alpha_at(Clock(2, 5), HISTORY) == 0.7
    ramp = hybrid(alpha_rule={"name": "ramp", "alpha_start": 0.0, "alpha_end": 1.0})
    assert ramp.alpha_at(Clock(2, 5), HISTORY) == pytest.approx(0.4)


def test_what_alpha_is_measured_with() -> None:
    inner, outer = PGD(num_steps=2), FGSM()
    assert hybrid().measurement(0.05) == (inner, 0.2)
    assert hybrid(alpha_rule={"name": "paper_ratio", "measured_at": "current"}).measurement(0.05) == (inner, 0.05)
    assert hybrid(alpha_attack="fgsm").measurement(0.05) == (outer, 0.2)
    assert hybrid(alpha_rule={"name": "paper_ratio", "split": "train"}).measurement(0.05) is None
    assert hybrid(alpha_rule="fixed").measurement(0.05) is None


# --- batch norm


def statistics(model: Network) -> dict[str, list[Tensor]]:
    halves: dict[str, list[Tensor]] = {"clean": [], "adversarial": []}
    for module in model.modules():
        if isinstance(module, SplitBatchNorm2d):
            halves["clean"].append(module.clean.state_dict()["running_mean"].clone())
            halves["adversarial"].append(module.adversarial.state_dict()["running_mean"].clone())
    return halves


def test_split_batch_norm_keeps_each_half_to_its_own_images() -> None:
    """The clean half ends as if only the clean images had been seen; with one batch norm it does not."""
    model, clean_only = split_network(), split_network()
    hybrid(split_batch_norm=True).loss(step(model, adversarial=COPIES))
    clean_only(IMAGES)
    seen, expected = statistics(model), statistics(clean_only)
    assert all(torch.equal(a, b) for a, b in zip(seen["clean"], expected["clean"], strict=True))
    assert not torch.equal(seen["adversarial"][0], expected["adversarial"][0])
    mixed = split_network()
    hybrid().loss(step(mixed, adversarial=COPIES))
    assert not torch.equal(statistics(mixed)["clean"][0], expected["clean"][0])


def test_split_batch_norm_also_crafts_with_the_adversarial_half() -> None:
    """Where the epoch's copy is made all at once too: both come from the same call."""
    model = split_network()
    for key, value in model.state_dict().items():
        if ".adversarial.bias" in key:
            value.add_(3.0)
    against = step(model).adversary
    split = hybrid(split_batch_norm=True).craft(model, IMAGES, LABELS, against)
    plain = hybrid().craft(model, IMAGES, LABELS, step(model).adversary)
    assert not torch.equal(split, plain)
    assert all(module.statistics == "clean" for module in model.modules() if isinstance(module, SplitBatchNorm2d))


# --- what contradicts itself


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"split_batch_norm": True, "batch_mode": "union"}, "split_batch_norm needs batch_mode 'paired'"),
        ({"examples": "epoch", "epsilon_update": "step"}, "epsilon_update 'step' needs examples 'batch'"),
        ({"alfa_rule": "fixed"}, "did you mean 'alpha_rule'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        hybrid(**fields)
