from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sweep.optimizers.base import Optimizer, Stepper
from sweep.registry import register


@register("sgd")
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, the usual choice for adversarial training (Rice et al. 2020)."""

    momentum: float = Field(0.9, ge=0, lt=1, description="share of the previous step that is kept")
    nesterov: bool = Field(False, description="look ahead along the momentum (Sutskever et al. 2013)")

    def build(self, parameters: Iterable[nn.Parameter]) -> Stepper:
        return SGDStepper(parameters, self)


class SGDStepper(Stepper):
    component: SGD

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        gradient = gradient + self.values["weight_decay"] * parameter
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        velocity = state["velocity"].mul_(self.values["momentum"]).add_(gradient)
        step = gradient + self.values["momentum"] * velocity if self.component.nesterov else velocity
        parameter.sub_(self.values["learning_rate"] * step)
