from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sweep.optimizers.base import Optimizer, Stepper
from sweep.registry import register


@register("adamw")
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="base step size; the schedule scales it")
    beta_1: float = Field(0.9, ge=0, lt=1, description="decay of the gradient's running mean")
    beta_2: float = Field(0.999, ge=0, lt=1, description="decay of the squared gradient's running mean")
    stability: float = Field(1e-8, gt=0, le=1e-2, description="added to the root of the second moment")

    def build(self, parameters: Iterable[nn.Parameter]) -> Stepper:
        return AdamWStepper(parameters, self)


class AdamWStepper(Stepper):
    component: AdamW

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        if not state:
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["count"] = torch.zeros((), device=parameter.device)
        values, count = self.values, state["count"].add_(1)
        parameter.mul_(1 - values["learning_rate"] * values["weight_decay"])
        mean = state["mean"].mul_(values["beta_1"]).add_((1 - values["beta_1"]) * gradient)
        square = state["square"].mul_(values["beta_2"]).add_((1 - values["beta_2"]) * gradient**2)
        scale = (square / (1 - values["beta_2"] ** count)).sqrt() + values["stability"]
        parameter.sub_(values["learning_rate"] * (mean / (1 - values["beta_1"] ** count)) / scale)
