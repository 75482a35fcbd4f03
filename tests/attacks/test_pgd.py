"""FGSM, PGD and their margin variant: each step by hand on a linear network, then what evaluation relies on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from sweep.attacks import Adversary, Attack, cross_entropy, margin, misclassified
from sweep.attacks.base import input_gradient, kl, wrong
from sweep.attacks.cw_pgd import CWPGD
from sweep.attacks.fgsm import FGSM
from sweep.attacks.pgd import PGD
from sweep.models.network import Network
from sweep.models.small_cnn import SmallCNN
from sweep.seeding import layer_randomness
from sweep.threat_models import ThreatModel
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf

WEIGHT = torch.tensor([[1.0, -2.0, 3.0, 0.0], [-1.0, 1.0, 1.0, 4.0]], dtype=torch.float64)
SLOPE = WEIGHT[1] - WEIGHT[0]  # of the loss of class 0, up to a positive factor: -2, 3, -2, 4
GREY = torch.tensor([0.5, 0.4, 0.6, 0.5], dtype=torch.float64).view(1, 1, 2, 2)
ZERO = torch.zeros(1, dtype=torch.int64)


class Linear(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ WEIGHT.T


def adversary(threat_model: ThreatModel, seed: int = 0) -> Adversary:
    return Adversary(threat_model, threat_model.epsilon, torch.Generator().manual_seed(seed))


def attacked(attack: Attack, threat_model: ThreatModel, images: Tensor = GREY) -> Tensor:
    return attack.perturb(Linear(), images, ZERO.expand(len(images)), adversary(threat_model)).flatten()


# --- single steps by hand


def test_fgsm_in_linf_moves_every_pixel_by_epsilon_along_the_sign() -> None:
    moved = attacked(FGSM(), Linf(epsilon=0.1))
    assert torch.allclose(moved, torch.tensor([0.4, 0.5, 0.5, 0.6], dtype=torch.float64))


def test_fgsm_in_l2_moves_by_epsilon_along_the_gradient() -> None:
    moved = attacked(FGSM(), L2(epsilon=0.1))
    assert torch.allclose(moved, GREY.flatten() + 0.1 * SLOPE / 33**0.5)


def test_fgsm_stops_at_the_box() -> None:
    corner = torch.tensor([0.0, 1.0, 0.05, 0.95], dtype=torch.float64).view(1, 1, 2, 2)
    moved = attacked(FGSM(), Linf(epsilon=0.1), corner)
    assert torch.allclose(moved, torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64))


def test_fgsm_s_step_is_a_multiple_of_epsilon() -> None:
    moved = attacked(FGSM(relative_step_size=0.5), Linf(epsilon=0.1))
    assert torch.allclose(moved, GREY.flatten() + 0.05 * SLOPE.sign())


def test_a_long_fgsm_step_is_brought_back_into_the_ball() -> None:
    assert torch.equal(attacked(FGSM(relative_step_size=4.0), Linf(epsilon=0.1)), attacked(FGSM(), Linf(epsilon=0.1)))


@pytest.mark.parametrize(("num_steps", "travelled"), [(1, 0.04), (2, 0.08), (3, 0.1), (9, 0.1)])
def test_pgd_travels_step_by_step_to_the_rim(num_steps: int, travelled: float) -> None:
    attack = PGD(num_steps=num_steps, step_size=0.04, random_start="none")
    linf, l2 = attacked(attack, Linf(epsilon=0.1)), attacked(attack, L2(epsilon=0.1))
    assert torch.allclose(linf, GREY.flatten() + travelled * SLOPE.sign())
    assert torch.allclose(l2, GREY.flatten() + travelled * SLOPE / 33**0.5)


@pytest.mark.parametrize("threat_model", [Linf(epsilon=0.1), L2(epsilon=0.2)])
def test_pgd_from_a_random_start_by_hand(threat_model: ThreatModel) -> None:
    points = threat_model.random_start(GREY, threat_model.epsilon, torch.Generator().manual_seed(0))
    step = 2.5 * threat_model.epsilon / 4
    for _ in range(4):
        slope = SLOPE.view_as(GREY)
        direction = slope.sign() if threat_model.name == "linf" else slope / 33**0.5
        points = threat_model.project(points + step * direction, GREY, threat_model.epsilon)
    assert torch.allclose(attacked(PGD(num_steps=4), threat_model), points.flatten())


def test_a_gaussian_start_is_near_the_image_and_not_on_it() -> None:
    images = torch.full((50, 1, 4, 4), 0.5)
    start = PGD(random_start="gaussian")._start(images, adversary(Linf(epsilon=0.1)))
    assert (start - images).std().item() == pytest.approx(0.001, rel=0.1)


def test_margin_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 1.0, 1.0], [-4.0, -1.0, -3.0]])
    assert margin(logits, torch.tensor([1, 1, 2])).tolist() == [-1.0, 4.0, 2.0]


def test_cw_pgd_raises_the_margin_where_cross_entropy_sees_nothing() -> None:
    """At logits a thousand apart the cross-entropy's gradient is 0 in float32, the margin's is not."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    network.load_state_dict({"1.weight": 1e3 * WEIGHT})
    image, label = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
    assert input_gradient(network, image, label, cross_entropy)[1].abs().max() == 0
    broken = {}
    for attack in (PGD(random_start="none"), CWPGD(random_start="none")):
        points = attack.perturb(network, image, label, adversary(Linf(epsilon=0.4)))
        broken[attack.name] = bool(misclassified(network, points, label))
    assert broken == {"pgd": False, "cw_pgd": True}


def test_cw_pgd_raises_nothing_but_the_margin() -> None:
    with pytest.raises(ValidationError, match="margin"):
        CWPGD.model_validate({"loss": "cross_entropy"})
    assert CWPGD().label == "cw_pgd_40"


def test_another_objective_replaces_the_attack_s_own() -> None:
    away = PGD(num_steps=2, random_start="none").perturb(
        Linear(), GREY, ZERO, adversary(Linf(epsilon=0.1)), objective=lambda logits, _: logits[:, 0]
    )
    assert torch.allclose(away.flatten(), GREY.flatten() + 0.1 * WEIGHT[0].sign())


# --- momentum


class Turning(nn.Module):
    """Two classes; the loss of class 0 rises along (4, 3), and once the first pixel has moved along (4, -3)."""

    def forward(self, images: Tensor) -> Tensor:
        first, second = images.flatten(1).unbind(1)
        score = 4 * first + 3 * torch.where(first > 0.5, -second, second)
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("ball", [Linf(epsilon=0.4), L2(epsilon=0.4)])
def test_momentum_gathers_gradients_of_length_1(ball: ThreatModel) -> None:
    """MI-FGSM by hand: g_1 = (4, 3) / 7, g_2 = mu g_1 + (4, -3) / 7, whatever the gradients' own lengths were."""
    image = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    attack = PGD(num_steps=2, step_size=0.1, random_start="none", momentum=0.5, loss="margin")
    moved = attack.perturb(Turning(), image, ZERO, adversary(ball)).flatten()
    gathered = [torch.tensor([4.0, 3.0]), torch.tensor([0.5 * 4 + 4, 0.5 * 3 - 3])]
    directions = [g.sign() if ball.name == "linf" else g / g.norm() for g in gathered]
    assert torch.allclose(moved, 0.5 + 0.1 * torch.stack(directions).sum(0).double())


# --- the divergence


def test_the_divergence_is_raised_from_the_clean_prediction_whatever_the_labels() -> None:
    network, (images, labels) = bent(), batch()
    clean = F.log_softmax(network(images).detach(), 1)
    attack = PGD(num_steps=3, num_restarts=2, loss="kl")
    points = attack.perturb(network, images, (labels + 1) % 4, adversary(Linf(epsilon=0.03)))
    given = PGD(num_steps=3, num_restarts=2).perturb(
        network, images, labels, adversary(Linf(epsilon=0.03)), objective=lambda logits, _: kl(logits, clean)
    )
    assert torch.allclose(points, given)


def test_the_divergence_follows_the_examples_that_are_left() -> None:
    """Until broken, the batch shrinks and so must the predictions that its divergences are taken from."""
    network, (images, labels), attack = bent(), batch(), PGD(num_steps=6, num_restarts=2, loss="kl")
    together = attack.perturb(network, images, labels, adversary(Linf(epsilon=0.03)), until_broken=True)
    broken = misclassified(network, together, labels)
    assert 0 < broken.sum() < len(images)
    at_full = attack.perturb(network, images, labels, adversary(Linf(epsilon=0.03)))
    assert torch.allclose(together[~broken], at_full[~broken])


def test_the_divergence_is_refused_a_start_where_it_has_no_gradient() -> None:
    with pytest.raises(ValidationError, match="loss kl has no gradient at the image itself: give random_start"):
        PGD(loss="kl", random_start="none")


@settings(max_examples=60, deadline=None)
@given(
    threat_model=st.sampled_from([Linf, L2]),
    epsilon=st.floats(1e-3, 1),
    num_steps=st.integers(1, 6),
    relative_step_size=st.floats(0.1, 50),
    random_start=st.sampled_from(["uniform", "gaussian", "none"]),
    loss=st.sampled_from(["cross_entropy", "margin"]),
    until_broken=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_whatever_its_settings_pgd_stays_in_the_ball_and_in_the_box(
    threat_model: Any, epsilon: float, seed: int, until_broken: bool, **fields: Any
) -> None:
    ball = threat_model(epsilon=epsilon)
    images = (2 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(seed)).double() - 0.5).clamp(0, 1)
    labels = torch.tensor([0, 1] * 3)
    points = PGD(**fields).perturb(Linear(), images, labels, adversary(ball, seed), until_broken=until_broken)
    assert (ball.distance(points, images) <= epsilon + 1e-9).all()
    assert ((points >= 0) & (points <= 1)).all()


# --- until broken, restarts, neighbours: on a network with bends


def bent() -> Network:
    with layer_randomness(1, "test"):
        core = SmallCNN(width=4).build(1, (6, 6), 4)
    return Network(core, [0.5], [0.05]).double().eval()


def batch(size: int = 24) -> tuple[Tensor, Tensor]:
    images = torch.rand(size, 1, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    logits: Tensor = bent()(images)
    return images, logits.argmax(1)


def path(network: nn.Module, attack: PGD, images: Tensor, labels: Tensor, against: Adversary) -> list[Tensor]:
    """Every point of one restart, all examples, in the plainest words."""
    points = [against.threat_model.random_start(images, against.epsilon, against.generator)]
    for _ in range(attack.num_steps):
        _, gradient = input_gradient(network, points[-1], labels, cross_entropy)
        step = 2.5 * against.threat_model.epsilon / attack.num_steps * against.threat_model.direction(gradient)
        points.append(against.threat_model.project(points[-1] + step, images, against.epsilon))
    return points


@pytest.mark.parametrize("threat_model", [Linf(epsilon=0.03), L2(epsilon=0.12)])
def test_until_broken_keeps_the_first_success_of_the_path(threat_model: ThreatModel) -> None:
    network, (images, labels), attack = bent(), batch(), PGD(num_steps=6)
    points = path(network, attack, images, labels, adversary(threat_model))
    verdicts = torch.stack([wrong(network(point).detach(), labels) for point in points])  # [steps + 1, N]
    first = torch.where(verdicts.any(0), verdicts.double().argmax(0), attack.num_steps)
    expected = torch.stack(points)[first, torch.arange(len(images))]
    found = attack.perturb(network, images, labels, adversary(threat_model), until_broken=True)
    assert torch.allclose(found, expected, atol=1e-9)
    assert torch.equal(misclassified(network, found, labels), verdicts.any(0))
    assert len(set(first.tolist())) >= 3, "the test needs examples that break at different steps"
    assert 0 < verdicts.any(0).sum() < len(images), "and some that do not"


def test_until_broken_spends_less_and_stops_when_all_is_broken() -> None:
    network, (images, labels), attack = bent(), batch(), PGD(num_steps=6, num_restarts=2)
    attack.perturb(network, images, labels, adversary(Linf(epsilon=0.03)))
    full = network.gradient_evaluations
    assert full == attack.gradient_evaluations * len(images)
    attack.perturb(network, images, labels, adversary(Linf(epsilon=0.03)), until_broken=True)
    assert network.gradient_evaluations - full < 0.8 * full
    network.gradient_evaluations = 0
    attack.perturb(network, images, (labels + 1) % 4, adversary(Linf(epsilon=0.001)), until_broken=True)
    assert network.gradient_evaluations == len(images), "one look at each, and no second restart"


@pytest.mark.parametrize("until_broken", [True, False])
def test_restarts_never_raise_accuracy_and_sometimes_lower_it(until_broken: bool) -> None:
    network, (images, labels) = bent(), batch(60)
    broken = []
    for restarts in (1, 2, 8):
        attack = PGD(num_steps=2, num_restarts=restarts, loss="margin")
        points = attack.perturb(network, images, labels, adversary(Linf(epsilon=0.02)), until_broken=until_broken)
        broken.append(misclassified(network, points, labels))
    assert bool((broken[0] <= broken[1]).all()) and bool((broken[1] <= broken[2]).all())
    assert broken[2].sum() > broken[0].sum()


def test_a_success_of_any_restart_counts_whatever_is_raised() -> None:
    """Here what is raised says little of what breaks, so a broken restart need not be the one with the highest loss."""
    network, (images, labels), against = bent(), batch(60), adversary(Linf(epsilon=0.05))
    broken = torch.zeros(60, dtype=torch.bool)
    for _ in range(6):
        start = against.threat_model.random_start(images, against.epsilon, against.generator)
        _, gradient = input_gradient(network, start, labels, lambda logits, _: logits[:, 0])
        end = against.threat_model.project(start + 0.125 * gradient.sign(), images, against.epsilon)
        broken |= misclassified(network, start, labels) | misclassified(network, end, labels)
    attack = PGD(num_steps=1, num_restarts=6)
    points = attack.perturb(
        network,
        images,
        labels,
        adversary(Linf(epsilon=0.05)),
        objective=lambda logits, _: logits[:, 0],
        until_broken=True,
    )
    assert torch.equal(misclassified(network, points, labels), broken)
    assert 5 < broken.sum() < 55


@pytest.mark.parametrize("until_broken", [True, False])
def test_an_example_s_fate_does_not_depend_on_its_neighbours(until_broken: bool) -> None:
    network, (images, labels) = bent(), batch()
    attack = PGD(num_steps=4, num_restarts=3)
    alone = attack.perturb(network, images, labels, adversary(Linf(epsilon=0.02)), until_broken=until_broken)
    others, lies = images.clone(), labels.clone()
    others[::2], lies[::2] = 0.5, (labels[::2] + 1) % 4  # half of the batch is broken from the start
    among = attack.perturb(network, others, lies, adversary(Linf(epsilon=0.02)), until_broken=until_broken)
    assert torch.allclose(alone[1::2], among[1::2], atol=1e-9)


def test_logits_that_are_not_finite_count_as_misclassified() -> None:
    logits = torch.tensor([[2.0, 1.0], [float("nan"), 1.0], [float("inf"), 0.0], [0.0, 1.0]])
    assert wrong(logits, torch.tensor([0, 0, 0, 0])).tolist() == [False, True, True, True]


def test_attack_of_a_gradient_that_is_nan_stays_an_image() -> None:
    """sqrt has no gradient at 0: times 0 it is NaN, while the logits are finite and right."""

    class Root(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            root = (images - images).sqrt().flatten(1)
            return images.flatten(1) @ WEIGHT.T + 0 * root[:, :2] + torch.tensor([9.0, 0.0])

    for threat_model in (Linf(epsilon=0.1), L2(epsilon=0.1)):
        assert input_gradient(Root(), GREY, ZERO, cross_entropy)[1].isnan().any()
        points = PGD().perturb(Root(), GREY, ZERO, adversary(threat_model), until_broken=True)
        assert points.isfinite().all()
        assert not misclassified(Root(), points, ZERO)


@pytest.mark.parametrize(
    ("attack", "label"),
    [
        (PGD(), "pgd_10"),
        (PGD(num_steps=20, num_restarts=5), "pgd_20x5"),
        (PGD(loss="margin"), "pgd_10_margin"),
        (PGD(num_restarts=3, loss="dlr", momentum=1.0), "pgd_10x3_dlr_momentum"),
        (PGD(loss="kl"), "pgd_10_kl"),
        (CWPGD(num_steps=7, num_restarts=2), "cw_pgd_7x2"),
        (PGD(step_size=2 / 255), "pgd_10_step_0.00784314"),
        (PGD(relative_step_size=1, momentum=1), "pgd_10_relative_step_1_momentum"),
        (PGD(relative_step_size=1, step_size=0.01, random_start="none"), "pgd_10_step_0.01_image_start"),
        (CWPGD(momentum=1.0), "cw_pgd_40_momentum"),
        (FGSM(), "fgsm"),
        (FGSM(random_start=True), "fgsm_random_start"),
        (FGSM(random_start=True, relative_step_size=1.25), "fgsm_random_start_relative_step_1.25"),
    ],
)
def test_labels(attack: Any, label: str) -> None:
    assert attack.label == label
