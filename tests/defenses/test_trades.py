"""TRADES: its divergence and its loss by hand and against its authors' formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from sweep.attacks.base import divergence
from sweep.attacks.pgd import PGD
from sweep.defenses import Step
from sweep.defenses.trades import Trades
from sweep.models.network import Network, crafting
from sweep.models.small_cnn import SmallCNN
from sweep.seeding import layer_randomness
from sweep.threat_models.linf import Linf

IMAGES = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4
DEFENSE = Trades(epsilon=0.1, beta=3.0, attack=PGD(num_steps=3, random_start="gaussian"))


def network() -> Network:
    with layer_randomness(1, "test"):
        return Network(SmallCNN(width=4).build(1, (6, 6), 4), [0.5], [0.05])


def step(model: Network, labels: Tensor = LABELS) -> Step:
    return Step(
        network=model,
        images=IMAGES,
        labels=labels,
        threat_model=Linf(epsilon=0.1),
        epsilon=torch.tensor(0.1),
        alpha=torch.tensor(0.0),
        generator=torch.Generator().manual_seed(5),
    )


def crafted(model: Network) -> Tensor:
    """The very points that the loss is taken at: the same stream, the same objective."""
    with torch.no_grad():
        target = model(IMAGES).softmax(1)

    def official(logits: Tensor, _labels: Tensor) -> Tensor:
        return F.kl_div(F.log_softmax(logits, 1), target, reduction="none").sum(1)

    with crafting(model, "eval"):
        return DEFENSE.attack.perturb(model, IMAGES, LABELS, step(model).adversary, objective=official)


def test_divergence_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1 / 3, 2 / 3]])
    q = torch.tensor([[0.25, 0.75], [0.5, 0.5], [1 / 3, 2 / 3]])
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    second = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert divergence(p.log(), q.log()).tolist() == pytest.approx([first, second, 0.0], abs=1e-6)


def test_loss_and_gradient_are_those_of_its_authors_formula() -> None:
    """criterion_kl(log_softmax(f(x')), softmax(f(x))), summed over classes and divided by the batch's size."""
    model = network()
    points = crafted(model)
    clean, adversarial = model(IMAGES), model(points)
    gap = F.kl_div(F.log_softmax(adversarial, 1), F.softmax(clean, 1), reduction="sum") / len(IMAGES)
    expected = F.cross_entropy(clean, LABELS) + 3.0 * gap
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    losses = DEFENSE.loss(step(model))
    found = torch.autograd.grad(losses.total, list(model.parameters()))
    assert gap > 0.001
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, gradients, strict=True))
    assert losses.adversarial is not None
    assert torch.allclose(losses.adversarial, F.cross_entropy(adversarial, LABELS, reduction="none"))


def test_its_attack_raises_the_divergence_and_looks_at_no_label() -> None:
    def gap(model: Network, labels: Tensor) -> float:
        losses = DEFENSE.loss(step(model, labels))
        assert losses.clean is not None
        return (losses.total - losses.clean.mean()).item()

    model = network()
    assert gap(model, LABELS) == pytest.approx(gap(model, LABELS.flip(0)), rel=1e-4)
    noise = IMAGES + torch.where(torch.rand(IMAGES.shape, generator=torch.Generator().manual_seed(1)) < 0.5, -0.1, 0.1)
    with torch.no_grad():
        random = divergence(F.log_softmax(model(IMAGES), 1), F.log_softmax(model(noise.clamp(0, 1)), 1)).mean()
    assert gap(model, LABELS) > 3 * 2 * random.item()


@pytest.mark.parametrize("attack", [{"name": "fgsm"}, {"name": "pgd", "random_start": "none"}, "carlini_l2"])
def test_an_attack_that_starts_where_the_divergence_has_no_gradient_is_refused(attack: Any) -> None:
    with pytest.raises(ValidationError, match="give the attack a random start"):
        Trades.model_validate({"epsilon": 0.1, "attack": attack})


def test_at_the_image_itself_the_divergence_has_no_gradient() -> None:
    """Why they are refused: what is left there is rounding noise, whose sign would be a step of full length."""
    model = network().double()
    images = IMAGES.double().requires_grad_()
    target = F.log_softmax(model(images.detach()).detach(), 1)
    (gradient,) = torch.autograd.grad(divergence(target, F.log_softmax(model(images), 1)).sum(), images)
    assert gradient.abs().max() < 1e-12


def test_fast_trades_with_a_random_fgsm_step_is_allowed() -> None:
    defense = Trades.model_validate({"epsilon": 0.1, "attack": {"name": "fgsm", "random_start": True}})
    assert defense.gradient_evaluations == 3
