"""Attacks in a row, each on what the ones before it left standing: what AutoAttack and its lighter form share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from sweep.attacks.base import Adversary, Attack, Objective, ask, margin
from sweep.threat_models.base import per_example


class Cascade(Attack):
    """Every part has a random stream of its own, and is given the whole batch with what is broken already replaced by
    the points that broke it, which it leaves alone. So a part's verdict on an example is the one that it would reach if
    it ran on all of them, and the cascade's is the worst case over its parts run in full.
    """

    @property
    @abstractmethod
    def parts(self) -> dict[str, Attack]:
        """Its attacks by the name that each reports under, in the order they run. Each returns what is misclassified
        where it stands as it is, under `until_broken`."""

    @property
    def labels(self) -> tuple[str, ...]:
        return (*(f"{self.label}/{name}" for name in self.parts), self.label)

    @property
    def gradient_evaluations(self) -> int:
        return sum(part.gradient_evaluations for part in self.parts.values())

    @property
    def fewest_classes(self) -> int:
        return max(part.fewest_classes for part in self.parts.values())

    @property
    def starts_at_image(self) -> bool:
        return all(part.starts_at_image for part in self.parts.values())

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
        """The points of the highest objective (the margin, if None) that any part found."""
        *_, points = self._run(network, images, labels, adversary, objective, until_broken)
        return points

    def stages(
        self, network: nn.Module, images: Tensor, labels: Tensor, adversary: Adversary
    ) -> Iterator[tuple[str, Tensor]]:
        """The points after each part, those that earlier ones broke among them, and at last once more as its own."""
        points = images
        for name, points in zip(self.parts, self._run(network, images, labels, adversary, None, True), strict=True):
            yield f"{self.label}/{name}", points
        yield self.label, points

    def streams(self, adversary: Adversary) -> Iterator[tuple[Attack, Adversary]]:
        """Each part with the adversary that it is run with: how much one of them draws moves none of the others."""
        parts, device = self.parts.values(), adversary.generator.device
        seeds = torch.randint(2**62, (len(parts),), generator=adversary.generator, device=device)
        for part, seed in zip(parts, seeds.tolist(), strict=True):
            yield part, replace(adversary, generator=torch.Generator(device).manual_seed(seed))

    def _run(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        adversary: Adversary,
        objective: Objective | None,
        until_broken: bool,
    ) -> Iterator[Tensor]:
        worst, highest = images, torch.full_like(labels, -torch.inf, dtype=images.dtype)
        broken, harm = torch.zeros_like(labels, dtype=torch.bool), objective or margin
        for part, its_own in self.streams(adversary):
            given = torch.where(per_example(broken, images), worst, images)
            tried = part.perturb(network, given, labels, its_own, objective=objective, until_broken=until_broken)
            reached, fooled = ask(network, tried, labels, harm)
            reached = reached.nan_to_num(torch.inf).to(highest.dtype)
            if until_broken:
                broken = broken | fooled
                reached[broken] = torch.inf
            worst = torch.where(per_example(reached > highest, images), tried, worst)
            highest = torch.maximum(highest, reached)
            yield worst
