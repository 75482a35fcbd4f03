"""What every registered defense promises, and the two plain ones by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweep.attacks import Adversary
from sweep.defenses import Clock, Defense, Step
from sweep.defenses.adversarial_training import AdversarialTraining
from sweep.defenses.gradient_regularization import GradientRegularization
from sweep.defenses.standard import Standard
from sweep.defenses.trades import Trades
from sweep.models.network import Network, crafting
from sweep.models.small_cnn import SmallCNN
from sweep.registry import KINDS, build
from sweep.seeding import layer_randomness
from sweep.threat_models.linf import Linf

NAMES = sorted(KINDS["defense"])
IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8)


def defense(name: str) -> Defense:
    """A defense by its name, whatever radius it requires being 0.1."""
    fields = KINDS["defense"][name].model_fields
    required = {key: 0.1 for key, field in fields.items() if field.is_required()}
    found: Defense = build("defense", {"name": name, **required})
    return found


def network(chosen: Defense, width: int = 4) -> Network:
    with layer_randomness(1, "test"):
        core = SmallCNN(width=width, activation="silu").build(1, (8, 8), 10)
    network = Network(core, [0.5], [0.25], preprocess=chosen.preprocessor(1), draws=chosen.test_draws)
    network.view = "training"  # as the training loop has it
    return network


def step(model: Network, epsilon: float = 0.1, alpha: float = 0.5) -> Step:
    return Step(
        network=model,
        images=IMAGES,
        labels=LABELS,
        threat_model=Linf(epsilon=0.1),
        epsilon=torch.tensor(epsilon),
        alpha=torch.tensor(alpha),
        generator=torch.Generator().manual_seed(5),
    )


# --- all of them


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_teaches_every_parameter_at_the_declared_cost(name: str) -> None:
    chosen = defense(name)
    model = network(chosen)
    losses = chosen.loss(step(model))
    torch.autograd.backward(losses.total)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert set(model.core.parameters()) <= set(trained)
    assert losses.total.dim() == 0
    assert losses.total.isfinite()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in trained)
    assert model.gradient_evaluations == chosen.gradient_evaluations * len(IMAGES)
    assert model.training


@pytest.mark.parametrize("name", NAMES)
def test_what_is_reported_is_per_example_and_detached(name: str) -> None:
    chosen = defense(name)
    losses = chosen.loss(step(network(chosen)))
    reported = [losses.clean, losses.adversarial, losses.clean_correct, losses.adversarial_correct]
    values = [value for value in reported if value is not None]
    assert len(values) in (2, 4)
    assert all(value.shape == (8,) and not value.requires_grad for value in values)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_stream_gives_the_same_loss(name: str) -> None:
    chosen = defense(name)
    model = network(chosen)
    totals = []
    for _ in range(2):
        with layer_randomness(2, "test"):
            totals.append(chosen.loss(step(model)).total)
    assert torch.equal(*totals)


@pytest.mark.parametrize("name", NAMES)
def test_radius_weight_and_order_over_training(name: str) -> None:
    chosen = defense(name)
    for epoch in range(4):
        clock = Clock(epoch, 4)
        assert 0 <= chosen.epsilon_at(clock, [0.5] * epoch) <= 0.1 + 1e-9
        assert 0 <= chosen.alpha_at(clock, []) <= 1
        assert 0 <= clock.progress < 1
    assert sorted((chosen.order(6, torch.Generator()) % 6).tolist()) == list(range(6))


def test_a_clock_counts_epochs_and_steps() -> None:
    assert Clock(3, 10).progress == pytest.approx(0.3)
    assert Clock(3, 10, step=1, steps=4).progress == pytest.approx(0.325)


def test_a_defense_without_an_attack_makes_no_examples() -> None:
    with pytest.raises(TypeError, match="standard makes no adversarial examples"):
        Standard().craft(network(Standard()), IMAGES, LABELS, step(network(Standard())).adversary)


# --- by hand


class LinearSoftmax(nn.Module):
    """Logits W x: the gradient of the cross-entropy with respect to x is W^T (p - e_y)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


def test_gradient_regularization_by_hand() -> None:
    model, images, labels = (
        Network(LinearSoftmax(), [0.0], [1.0]),
        torch.rand(5, 1, 2, 2),
        torch.tensor([0, 1, 2, 0, 1]),
    )
    weight = next(model.parameters())
    error = (images.flatten(1) @ weight.T).softmax(1) - torch.eye(3)[labels]
    expected = cross_entropy(model(images), labels) + 0.7 * (error @ weight).square().sum(1).mean()
    (gradient,) = torch.autograd.grad(expected, weight)
    given = Step(model, images, labels, Linf(epsilon=0.1), torch.tensor(0.0), torch.tensor(1.0), torch.Generator())
    found = GradientRegularization(penalty=0.7).loss(given).total
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(torch.autograd.grad(found, weight)[0], gradient, atol=1e-5)


def test_adversarial_training_is_the_cross_entropy_at_the_attacked_points() -> None:
    chosen = AdversarialTraining(epsilon=0.1)
    model = network(chosen)
    with crafting(model, "eval"):
        points = chosen.attack.perturb(model, IMAGES, LABELS, step(model).adversary)
    losses = chosen.loss(step(model))
    assert losses.total.item() == pytest.approx(cross_entropy(model(points), LABELS).item(), rel=1e-6)
    assert losses.total > Standard().loss(step(model)).total


def test_a_tensor_radius_trains_as_a_number_does() -> None:
    chosen = AdversarialTraining(epsilon=0.1)
    model = network(chosen)
    plain = Adversary(Linf(epsilon=0.1), 0.1, torch.Generator().manual_seed(5))
    by_number = chosen.craft(model, IMAGES, LABELS, plain)
    assert torch.allclose(by_number, chosen.craft(model, IMAGES, LABELS, step(model).adversary), atol=1e-6)


# --- values are tensors: another value is never another computation


def recompiled(chosen: list[Any], values: list[tuple[float, float]]) -> list[int]:
    """How many graphs torch.compile has made after each loss, which must also be the one that eager mode computes."""
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    def loss(which: Defense, given: Step) -> Tensor:
        return which.loss(given).total.detach()

    reset()
    counters.clear()
    compiled = torch.compile(loss, backend="eager")
    model, graphs = network(chosen[0]), []
    for which, (epsilon, alpha) in zip(chosen, values, strict=True):
        assert torch.allclose(compiled(which, step(model, epsilon, alpha)), loss(which, step(model, epsilon, alpha)))
        graphs.append(counters["stats"]["unique_graphs"])
    return graphs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("name", ["hybrid", "trades"])
def test_new_values_of_epsilon_alpha_and_beta_compile_nothing_anew(name: str) -> None:
    attack = {"name": "pgd", "num_steps": 1, "random_start": "gaussian"}
    chosen = [build("defense", {"name": name, "epsilon": 0.1, "attack": attack}) for _ in range(3)]
    if name == "trades":
        chosen = [Trades(epsilon=0.1, attack=chosen[0].attack, beta=beta) for beta in (1.0, 2.0, 6.0)]
    first, *others = recompiled(chosen, [(0.1, 0.5), (0.2, 0.1), (0.05, 0.9)])
    assert first > 0
    assert others == [first, first]
