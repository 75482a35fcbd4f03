"""Noise: drawn anew in training, one known mean at test, and every attack climbs that mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweep.attacks import Adversary, misclassified
from sweep.attacks.base import input_gradient
from sweep.attacks.pgd import PGD
from sweep.configuration import TrialConfig
from sweep.defenses.adversarial_training import AdversarialTraining
from sweep.defenses.feature_squeezing import FeatureSqueezing
from sweep.defenses.noise_injection import Noise, NoiseInjection
from sweep.models.network import Network, crafting, viewed
from sweep.models.small_cnn import SmallCNN
from sweep.registry import validated
from sweep.seeding import layer_randomness
from sweep.threat_models.linf import Linf
from sweep.trial import Trial

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6)


def core() -> nn.Module:
    with layer_randomness(1, "test"):
        return SmallCNN(width=4, activation="silu").build(1, (8, 8), 10)


def network(sigma: float = 0.3, draws: int = 5, seed: int = 0) -> Network:
    return Network(core(), [0.5], [0.25], preprocess=Noise(sigma), draws=draws, seed=seed).eval()


def drawn(sigma: float, draw: int, seed: int = 0) -> Tensor:
    """The logits under one draw, by hand."""
    with layer_randomness(seed, "preprocessing", draw):
        noise = torch.randn(1, 1, 8, 8)
    logits: Tensor = Network(core(), [0.5], [0.25]).eval()(IMAGES + sigma * noise)
    return logits


def test_a_prediction_is_the_mean_over_the_draws_by_hand() -> None:
    expected = torch.stack([drawn(0.3, draw) for draw in range(5)]).mean(0)
    assert torch.allclose(network()(IMAGES), expected, atol=1e-6)
    assert not torch.allclose(network(seed=1)(IMAGES), expected, atol=1e-3)


def test_an_attack_s_gradient_is_that_of_the_mean_and_costs_a_pass_a_draw() -> None:
    model = network()
    logits, gradient = input_gradient(model, IMAGES, LABELS, lambda z, y: cross_entropy(z, y, reduction="none"))
    points = IMAGES.clone().requires_grad_()
    mean = torch.zeros(())
    for draw in range(5):
        with layer_randomness(0, "preprocessing", draw):
            noise = torch.randn(1, 1, 8, 8)
        mean = mean + Network(model.core, [0.5], [0.25])(points + 0.3 * noise) / 5
    (expected,) = torch.autograd.grad(cross_entropy(mean, LABELS, reduction="sum"), points)
    assert torch.allclose(logits, mean.detach(), atol=1e-6)
    assert torch.allclose(gradient, expected, atol=1e-6)
    assert model.gradient_evaluations == 5 * len(IMAGES)


def test_several_gradients_of_one_pass_agree() -> None:
    """FAB takes one for each class."""
    model, points = network(), IMAGES.clone().requires_grad_()
    logits = model(points)
    first, second, again = (
        torch.autograd.grad(logits[:, which].sum(), points, retain_graph=True)[0] for which in (0, 1, 0)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_an_example_does_not_depend_on_its_neighbours_nor_on_the_global_stream() -> None:
    model = network()
    whole = model(IMAGES)
    state = torch.get_rng_state()
    assert torch.allclose(model(IMAGES[2:4]), whole[2:4], atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_draws_anew_for_each_image_and_each_pass() -> None:
    model = Network(nn.Flatten(), [0.0], [1.0], preprocess=Noise(0.3), draws=5)
    black = torch.zeros(200, 1, 8, 8)
    with viewed(model, "training"), layer_randomness(0, "layers", 0):
        first, second = model(black), model(black)
        assert first.std().item() == pytest.approx(0.3, rel=0.02)
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first, second)
        with crafting(model, "eval"):
            one = model(black)
        assert torch.equal(one[0], one[1]), "one draw a batch: an example does not depend on its neighbours"
    assert model.view == "judged"
    with layer_randomness(0, "layers", 0):
        torch.randn(5)
        assert torch.equal(model.eval()(black), model(black)), "judged: the draws are the network's own"


def test_the_naive_attack_sees_one_draw_that_is_none_of_the_judge_s() -> None:
    model = network()
    with viewed(model, "naive"):
        logits = model(IMAGES)
    assert torch.allclose(logits, drawn(0.3, 5), atol=1e-6)


def test_draws_are_declared_through_what_stands_before_it() -> None:
    assert FeatureSqueezing(training=NoiseInjection(draws=7)).test_draws == 7
    assert NoiseInjection(draws=3, training=NoiseInjection(draws=7)).test_draws == 7
    assert NoiseInjection(training=AdversarialTraining(epsilon=0.1)).test_draws == 20


def test_what_an_attack_leaves_as_broken_is_broken_for_the_judge() -> None:
    """Alone and among others: there is one network."""
    model = network()
    labels = model(IMAGES).argmax(1)
    against = Adversary(Linf(epsilon=0.2), 0.2, torch.Generator().manual_seed(0))
    points = PGD(num_steps=10).perturb(model, IMAGES, labels, against, until_broken=True)
    broken = misclassified(model, points, labels)
    alone = [bool(misclassified(model, points[row : row + 1], labels[row : row + 1])) for row in range(len(labels))]
    assert broken.tolist() == alone
    assert 0 < broken.sum() < len(labels)


def config(**changes: Any) -> TrialConfig:
    attack = {"name": "pgd", "num_steps": 2}
    given = {
        "dataset": {"name": "digits", "train_size": 200, "validation_size": 60},
        "model": {"name": "small_cnn", "width": 4},
        "threat_model": {"name": "linf", "epsilon": 0.1},
        "defense": {
            "name": "noise_injection",
            "draws": 3,
            "training": {"name": "adversarial_training", "epsilon": 0.1, "attack": attack},
        },
        "validation_attacks": [{"name": "pgd", "num_steps": 3}],
        "objective": [{"metric": "validation/pgd_3/adversarial_accuracy"}],
        "epochs": 3,
    }
    return validated(TrialConfig, given | changes, "trial")


def test_a_trial_with_noise_is_its_configuration_and_seed_resumed_too(tmp_path: Any) -> None:
    whole = Trial(config())
    results = list(whole.run())
    figures = whole.finish()
    next(Trial(config(), tmp_path).run())
    torch.manual_seed(7)
    resumed = Trial(config(), tmp_path)
    same = [
        {name: value for name, value in result.metrics.items() if "seconds" not in name and "memory" not in name}
        for result in results
    ]
    for result, expected in zip(resumed.run(), same, strict=True):
        assert {name: result.metrics[name] for name in expected} == expected
    assert resumed.finish() == figures
    assert 0 <= figures["validation/pgd_3_naive/adversarial_accuracy"] <= 1
    # Training attacks one draw: two steps, and one pass that learns. Validation attacks the mean of three.
    assert results[0].metrics["gradient_evaluations"] == 3 * 200
    assert 0 < results[0].metrics["validation/gradient_evaluations"] <= 3 * 3 * 60
