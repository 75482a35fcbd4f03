from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sweep.attacks.ascent import ascend
from sweep.attacks.base import OBJECTIVES, Adversary, Attack, Objective, kl, misclassified
from sweep.registry import register

RandomStart = Literal["uniform", "gaussian", "none"]
_GAUSSIAN_SCALE = 0.001  # TRADES' start (Zhang et al. 2019, official code)


@register("pgd")
class PGD(Attack):
    """Projected gradient descent: small steps from random starts, of which the worst counts (Madry et al. 2018)."""

    num_steps: int = Field(10, ge=1, le=10_000, description="gradient steps per restart")
    relative_step_size: float = Field(2.5, gt=0, le=10_000, description="step as a multiple of epsilon / num_steps")
    step_size: float | None = Field(None, gt=0, le=1, description="step in pixel units; replaces relative_step_size")
    num_restarts: int = Field(1, ge=1, le=1_000, description="independent starts; an example counts its worst")
    random_start: RandomStart = Field("uniform", description="uniform in the ball, N(0, 0.001^2) as TRADES, or none")
    loss: Literal["cross_entropy", "margin", "dlr", "kl"] = Field(
        "cross_entropy", description="what the attack raises; kl: the divergence from the clean prediction"
    )
    momentum: float = Field(
        0.0, ge=0, le=10, description="decay of the gathered gradient; 1 with relative_step_size 1 is MI-FGSM"
    )

    @model_validator(mode="after")
    def _can_begin(self) -> Self:
        if self.loss == "kl" and self.starts_at_image:
            raise ValueError("loss kl has no gradient at the image itself: give random_start uniform or gaussian")
        return self

    @property
    def label(self) -> str:
        """Whatever is not as the name implies tells it from its siblings: ``pgd_10_dlr_step_0.01_momentum``."""
        restarts = f"x{self.num_restarts}" if self.num_restarts > 1 else ""
        parts = {
            "loss": self.loss,
            "step_size": f"step_{self.step_size:g}" if self.step_size else "",
            "relative_step_size": "" if self.step_size else f"relative_step_{self.relative_step_size:g}",
            "random_start": f"{'image' if self.starts_at_image else self.random_start}_start",
            "momentum": "momentum",
        }
        told = [part for name, part in parts.items() if part and not self._is_default(name)]
        return "_".join([f"{self.name}_{self.num_steps}{restarts}", *told])

    def _is_default(self, name: str) -> bool:
        return bool(getattr(self, name) == type(self).model_fields[name].default)

    @property
    def gradient_evaluations(self) -> int:
        return self.num_steps * self.num_restarts

    @property
    def fewest_classes(self) -> int:
        return 3 if self.loss == "dlr" else 2

    @property
    def starts_at_image(self) -> bool:
        return self.random_start == "none"

    def perturb(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        adversary: Adversary,
        *,
        objective: Objective | None = None,
        until_broken: bool = False,
    ) -> Tensor:
        objective, reference = self._raised(network, images, labels, objective)
        worst: Tensor | None = None
        for _ in range(self.num_restarts):
            # Every restart draws for the whole batch, so what an example meets never depends on its neighbours' fates.
            start = self._start(images, adversary)
            if worst is None:
                worst = self._ascend(network, images, labels, start, adversary, objective, reference, until_broken)
                continue
            rows = torch.arange(len(images), device=images.device)
            if until_broken:
                rows = rows[~misclassified(network, worst, labels)]
            if not len(rows):
                break
            some = images[rows], labels[rows], start[rows]
            tried = self._ascend(network, *some, adversary, objective, reference[rows], until_broken)
            worse = _losses(network, tried, reference[rows], objective) > _losses(
                network, worst[rows], reference[rows], objective
            )
            if until_broken:
                worse = worse | misclassified(network, tried, labels[rows])
            worst[rows[worse]] = tried[worse]
        assert worst is not None
        return worst

    def _raised(
        self, network: nn.Module, images: Tensor, labels: Tensor, objective: Objective | None
    ) -> tuple[Objective, Tensor]:
        """What is raised, and what it holds the logits against."""
        if objective is not None:
            return objective, labels
        if self.loss == "kl":
            with torch.no_grad():
                return kl, F.log_softmax(network(images), 1)
        return OBJECTIVES[self.loss], labels

    def _start(self, images: Tensor, adversary: Adversary) -> Tensor:
        if self.random_start == "uniform":
            return adversary.threat_model.random_start(images, adversary.epsilon, adversary.generator)
        if self.random_start == "gaussian":
            noise = torch.randn(images.shape, generator=adversary.generator, device=images.device)
            return adversary.threat_model.project(images + _GAUSSIAN_SCALE * noise, images, adversary.epsilon)
        return images

    def _ascend(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        start: Tensor,
        adversary: Adversary,
        objective: Objective,
        reference: Tensor,
        until_broken: bool,
    ) -> Tensor:
        step_size = self.step_size or self.relative_step_size * adversary.epsilon / self.num_steps
        return ascend(
            network,
            images,
            labels,
            start,
            adversary,
            objective=objective,
            reference=reference,
            momentum=self.momentum,
            step_size=step_size,
            num_steps=self.num_steps,
            until_broken=until_broken,
        )


def _losses(network: nn.Module, points: Tensor, reference: Tensor, objective: Objective) -> Tensor:
    with torch.no_grad():
        return objective(network(points), reference)
