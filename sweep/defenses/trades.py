from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch.nn import functional as F

from sweep.attacks import NamedAttack, cross_entropy
from sweep.attacks.base import divergence
from sweep.attacks.pgd import PGD
from sweep.defenses.base import AttackedDefense, Losses, Step, correct
from sweep.models.network import crafting
from sweep.registry import register


@register("trades")
class Trades(AttackedDefense):
    """L = CE(f(x), y) + beta KL(f(x) || f(x')), where x' raises the divergence itself (Zhang et al. 2019, eq. 5).

    The gradient flows through both of the divergence's arguments; x' is made against the fixed clean prediction.
    """

    beta: float = Field(6.0, gt=0, le=100, description="weight of the divergence (6 on CIFAR-10, 1 on MNIST)")
    attack: NamedAttack = Field(
        default=PGD(num_steps=10, random_start="gaussian"), description="inner attack; it raises the divergence"
    )

    @property
    def gradient_evaluations(self) -> float:
        return self.attack.gradient_evaluations + 2

    @model_validator(mode="after")
    def _can_begin(self) -> Self:
        if self.attack.starts_at_image:
            problem = f"the divergence has no gradient at the image itself, where {self.attack.label} starts"
            raise ValueError(f"{problem}: give the attack a random start")
        return self

    def loss(self, step: Step) -> Losses:
        with torch.no_grad(), crafting(step.network, self.batch_norm):
            target = F.log_softmax(step.network(step.images), 1)
        adversarial = self.craft(
            step.network,
            step.images,
            step.labels,
            step.adversary,
            objective=lambda logits, _: divergence(target, F.log_softmax(logits, 1)),
        )
        clean_logits, logits = step.network(step.images), step.network(adversarial)
        clean = cross_entropy(clean_logits, step.labels)
        gap = divergence(F.log_softmax(clean_logits, 1), F.log_softmax(logits, 1))
        beta = torch.tensor(self.beta, device=clean.device)
        return Losses(
            (clean + beta * gap).mean(),
            clean=clean.detach(),
            adversarial=cross_entropy(logits.detach(), step.labels),
            clean_correct=correct(clean_logits, step.labels),
            adversarial_correct=correct(logits, step.labels),
        )
