from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sweep.attacks.base import Adversary, Attack, Objective, margin, misclassified, wrong
from sweep.registry import register
from sweep.threat_models.base import per_example

_EDGE = 1 - 1e-6  # atanh is infinite at a pixel of exactly 0 or 1; without this such pixels could never move
_TO_GREY = 7.5  # a little more than atanh(_EDGE): how far such a pixel is from grey, in tanh space


@register("carlini_l2")
class CarliniL2(Attack):
    """The smallest L2 perturbation that fools the network (Carlini and Wagner 2017, section 5.1): a distortion.

    Minimises |x' - x|_2^2 + c f(x') over w, x' = (tanh w + 1) / 2, by Adam, with a binary search over c for each
    example. Only an L2 threat model can judge it: scored in an Linf ball it says nothing, as it never tried to stay in
    one.
    """

    threat_models: ClassVar[tuple[str, ...]] = ("l2",)

    num_steps: int = Field(1_000, ge=1, le=100_000, description="Adam steps for each constant (the paper's 10,000)")
    binary_search_steps: int = Field(9, ge=1, le=50, description="values of the constant c that are tried")
    learning_rate: float = Field(0.01, gt=0, le=1, description="Adam's step in tanh space")
    initial_constant: float = Field(1e-3, gt=0, le=1e10, description="first value of c, tenfold until something works")

    @model_validator(mode="after")
    def _can_move(self) -> Self:
        if self.num_steps * self.learning_rate < _TO_GREY:
            problem = (
                f"num_steps * learning_rate must be at least {_TO_GREY}, got {self.num_steps * self.learning_rate:g}"
            )
            raise ValueError(
                f"{problem}: a pixel of 0 or 1 could not leave its edge, and any network would look robust"
            )
        return self

    @property
    def label(self) -> str:
        return f"carlini_l2_{self.binary_search_steps}x{self.num_steps}"

    @property
    def gradient_evaluations(self) -> int:
        return self.num_steps * self.binary_search_steps

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
        """The nearest misclassified image where it lies within epsilon, else the image itself."""
        rows, result = torch.arange(len(images), device=images.device), images.clone()
        if until_broken:
            rows = rows[~misclassified(network, images, labels)]
        if not len(rows):
            return result
        nearest, distance = self.minimise(network, images[rows], labels[rows])
        inside = distance <= torch.as_tensor(adversary.epsilon)
        result[rows] = torch.where(per_example(inside, images), nearest, images[rows])
        return result

    def minimise(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest misclassified images found, and their [N] L2 distances (infinite where none was found)."""
        found = _Found(images.clone(), images.new_full((len(images),), torch.inf))
        constant = torch.full_like(found.distance, self.initial_constant)
        low, high = torch.zeros_like(constant), torch.full_like(constant, torch.inf)
        for _ in range(self.binary_search_steps):
            success = self._descend(network, images, labels, constant, found)
            high = torch.where(success, torch.minimum(high, constant), high)
            low = torch.where(success, low, torch.maximum(low, constant))
            constant = torch.where(high.isfinite(), (low + high) / 2, low * 10)
        return found.images, found.distance

    def _descend(self, network: nn.Module, images: Tensor, labels: Tensor, constant: Tensor, found: _Found) -> Tensor:
        w = torch.atanh((2 * images - 1) * _EDGE).requires_grad_()
        adam = torch.optim.Adam([w], lr=self.learning_rate)
        success = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        for _ in range(self.num_steps):
            points = (torch.tanh(w) + 1) / 2
            logits = network(points)
            square = (points - images).flatten(1).square().sum(1)
            loss = square + constant * (-margin(logits, labels)).clamp_min(0)
            w.grad = torch.autograd.grad(loss.sum(), w)[0].nan_to_num()
            fooled = wrong(logits.detach(), labels)
            success |= fooled
            found.keep(points.detach(), square.detach().sqrt(), fooled)
            adam.step()
        return success


@dataclass
class _Found:
    images: Tensor
    distance: Tensor

    def keep(self, points: Tensor, distance: Tensor, fooled: Tensor) -> None:
        better = fooled & (distance < self.distance)
        self.images[better], self.distance[better] = points[better], distance[better]
