"""Optimizers whose learning rate and weight decay are tensors, so that a new value never makes a new computation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from sweep.registry import Component, named


class Optimizer(Component):
    """How a parameter moves along its gradient."""

    kind: ClassVar[str] = "optimizer"

    learning_rate: float = Field(0.01, gt=0, le=10, description="base step along the gradient; the schedule scales it")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="L2 penalty's coefficient")

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> Stepper:
        """The optimizer's state over these parameters."""


class Stepper(torch.optim.Optimizer):
    """torch's optimizer (its state handling), with tensors for hyperparameters; the loop sets the learning rate."""

    def __init__(self, parameters: Iterable[nn.Parameter], component: Optimizer) -> None:
        self.component = component
        values = {key: value for key, value in component if isinstance(value, float)}
        super().__init__(list(parameters), {"learning_rate": component.learning_rate})
        device = self.param_groups[0]["params"][0].device
        self.values = {key: torch.tensor(value, device=device) for key, value in values.items()}

    def set_learning_rate(self, value: float) -> None:
        self.values["learning_rate"].fill_(value)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is ever re-evaluated here
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                self.update(parameter, parameter.grad, self.state[parameter])

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        """Move one parameter in place; `state` is what this parameter carries from step to step."""
        raise NotImplementedError


NamedOptimizer = Annotated[SerializeAsAny[Optimizer], named("optimizer")]
