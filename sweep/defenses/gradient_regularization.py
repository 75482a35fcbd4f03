from __future__ import annotations

import torch
from pydantic import Field

from sweep.attacks import cross_entropy
from sweep.defenses.base import Defense, Losses, Step, correct
from sweep.registry import register


@register("gradient_regularization")
class GradientRegularization(Defense):
    """L = CE(f(x), y) + penalty |grad_x CE|_2^2: robustness without attacks (Ross and Doshi-Velez 2018, eq. 6).

    The penalty is differentiated in its turn (double backpropagation), so it needs an activation with a useful second
    derivative for its full effect; with ReLU it still shapes the first.
    """

    penalty: float = Field(
        1.0, ge=0, le=10_000, description="weight of the squared input gradient (searched in 1e-3..10)"
    )

    @property
    def gradient_evaluations(self) -> float:
        return 2

    @property
    def differentiates_twice(self) -> bool:
        return True

    def loss(self, step: Step) -> Losses:
        images = step.images.detach().requires_grad_()
        logits = step.network(images)
        losses = cross_entropy(logits, step.labels)
        (gradient,) = torch.autograd.grad(losses.sum(), images, create_graph=True)
        penalty = torch.tensor(self.penalty, device=losses.device)
        total = losses.mean() + penalty * gradient.flatten(1).square().sum(1).mean()
        return Losses(total, clean=losses.detach(), clean_correct=correct(logits, step.labels))
