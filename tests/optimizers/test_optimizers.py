"""Optimizers: equal to torch's own, step after step, and their state saved and restored without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sweep.optimizers import Optimizer, Stepper
from sweep.optimizers.adamw import AdamW
from sweep.optimizers.sgd import SGD
from sweep.registry import KINDS

STEPS = 20
IMAGES = torch.rand(16, 6, generator=torch.Generator().manual_seed(1))
TARGETS = torch.rand(16, 2, generator=torch.Generator().manual_seed(2))
ALL: list[Any] = list(KINDS["optimizer"].values())


def rates(step: int) -> float:
    return 0.1 / (1 + step)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


def backward(model: nn.Module) -> None:
    model.zero_grad()
    torch.autograd.backward((model(IMAGES) - TARGETS).square().mean())


def trained(component: Optimizer, steps: int = STEPS) -> nn.Module:
    model = network()
    run(model, component.build(model.parameters()), range(steps))
    return model


def run(model: nn.Module, stepper: Stepper, steps: range) -> None:
    for step in steps:
        backward(model)
        stepper.set_learning_rate(rates(step))
        stepper.step()


def trained_by_torch(build: Callable[[Any], torch.optim.Optimizer]) -> nn.Module:
    model = network()
    optimizer = build(model.parameters())
    for step in range(STEPS):
        backward(model)
        optimizer.param_groups[0]["lr"] = rates(step)
        optimizer.step()
    return model


def values(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_torch_s(momentum: float, nesterov: bool, weight_decay: float) -> None:
    ours = trained(SGD(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay))
    theirs = trained_by_torch(
        lambda parameters: torch.optim.SGD(
            parameters, 0.1, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )
    )
    assert torch.allclose(values(ours), values(theirs), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(values(ours), values(network()), atol=0.01)


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize(("beta_1", "beta_2", "stability"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 1e-3)])
def test_adamw_is_torch_s(beta_1: float, beta_2: float, stability: float, weight_decay: float) -> None:
    ours = trained(AdamW(beta_1=beta_1, beta_2=beta_2, stability=stability, weight_decay=weight_decay))
    theirs = trained_by_torch(
        lambda parameters: torch.optim.AdamW(
            parameters, 0.1, betas=(beta_1, beta_2), eps=stability, weight_decay=weight_decay
        )
    )
    assert torch.allclose(values(ours), values(theirs), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(values(ours), values(network()), atol=0.01)


@pytest.mark.parametrize("kind", ALL)
def test_state_saved_and_restored_goes_on_to_the_bit(kind: Any) -> None:
    component = kind(weight_decay=0.01)
    straight = trained(component)
    model = network()
    first = component.build(model.parameters())
    run(model, first, range(7))
    saved = first.state_dict()
    again = network()
    again.load_state_dict(model.state_dict())
    second = component.build(again.parameters())
    second.load_state_dict(saved)
    run(again, second, range(7, STEPS))
    assert torch.equal(values(again), values(straight))
    fresh = network()
    fresh.load_state_dict(model.state_dict())
    run(fresh, component.build(fresh.parameters()), range(7, STEPS))
    assert not torch.equal(values(fresh), values(straight)), "there was no state to lose"


@pytest.mark.parametrize("kind", ALL)
def test_a_parameter_without_a_gradient_stays(kind: Any) -> None:
    model = network()
    stepper = kind(weight_decay=0.5).build(model.parameters())
    backward(model)
    left, *moved = model.parameters()
    left.grad = None
    stepper.step()
    first, *rest = network().parameters()
    assert torch.equal(left, first)
    assert not any(torch.equal(after, before) for after, before in zip(moved, rest, strict=True))


@pytest.mark.parametrize("kind", ALL)
def test_the_configured_learning_rate_is_the_first_one(kind: Any) -> None:
    stepper = kind(learning_rate=0.25).build(network().parameters())
    assert stepper.values["learning_rate"].item() == 0.25
    stepper.set_learning_rate(0.125)
    assert stepper.values["learning_rate"].item() == 0.125


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_new_values_of_learning_rate_and_weight_decay_compile_nothing_anew(kind: Any) -> None:
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    reset()
    counters.clear()
    model = network()
    stepper = kind().build(model.parameters())
    backward(model)
    stepper.step()  # the first step makes the state
    compiled: Any = torch.compile(stepper.step, backend="eager")
    graphs = []
    for value in (0.1, 0.02, 0.5):
        stepper.set_learning_rate(value)
        stepper.values["weight_decay"].fill_(value / 10)
        compiled()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs == [graphs[0]] * 3


@pytest.mark.parametrize("kind", ALL)
def test_every_hyperparameter_enters_the_step_as_a_tensor(kind: Any) -> None:
    stepper = kind().build(network().parameters())
    numbers = {key for key, field in kind.model_fields.items() if field.annotation is float}
    assert set(stepper.values) == numbers >= {"learning_rate", "weight_decay"}
    assert all(isinstance(value, Tensor) and value.dim() == 0 for value in stepper.values.values())
