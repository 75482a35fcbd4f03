from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from sweep.attacks.base import Adversary, Attack, Objective, ask, margin, misclassified
from sweep.attacks.windows import GEOMETRIES
from sweep.registry import register
from sweep.threat_models.base import per_example

_HALVINGS = (10, 50, 200, 500, 1_000, 2_000, 4_000, 6_000, 8_000)  # of 10,000 queries, as in section 5 of the paper


@register("square")
class Square(Attack):
    """Random search with squares, which asks for logits and never for a gradient (Andriushchenko et al. 2020, alg. 1).

    What hides gradients does not hide from it: a network that it breaks where white-box attacks fail masks its
    gradients, or was attacked with too few steps.
    """

    num_queries: int = Field(5_000, ge=1, le=1_000_000, description="points that the network is asked about")
    initial_area: float = Field(0.8, gt=0, le=1, description="share of the image in the first squares (the paper's p)")

    @property
    def label(self) -> str:
        return f"square_{self.num_queries}"

    @property
    def gradient_evaluations(self) -> int:
        return 0

    @property
    def starts_at_image(self) -> bool:
        return False

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
        """The points of the highest objective (the margin) that the queries met; with `until_broken`, the first that is
        misclassified, where the image itself is not. Draws are made for the whole batch, so that an example's do not
        depend on its neighbours' fates.
        """
        objective = objective or margin
        windows = GEOMETRIES[adversary.threat_model.name]
        best, highest = windows.start(images, adversary), torch.full_like(labels, -torch.inf, dtype=images.dtype)
        rows = torch.arange(len(images), device=images.device)
        if until_broken:
            standing = ~misclassified(network, images, labels)
            best, rows = torch.where(per_example(standing, images), best, images), rows[standing]
        if len(rows):
            reached, broken = ask(network, best[rows], labels[rows], objective)
            highest[rows] = reached.to(highest.dtype)
            rows = rows[~broken] if until_broken else rows
        for query in range(1, self.num_queries):
            if not len(rows):
                break
            draws = windows.draw(images, adversary.generator)[rows]
            area = self.area(query - 1) * images[0, 0].numel()
            tried = windows.propose(best[rows], images[rows], adversary, area, draws)
            reached, broken = ask(network, tried, labels[rows], objective)
            better = reached > highest[rows]
            if until_broken:
                better |= broken
            best[rows[better]], highest[rows[better]] = tried[better], reached[better].to(highest.dtype)
            rows = rows[~broken] if until_broken else rows
        return best

    def area(self, proposal: int) -> float:
        """The share of the image that the given proposal (from 0) covers: halved nine times on the way."""
        place = math.floor(proposal / self.num_queries * 10_000)
        return self.initial_area * 0.5 ** sum(place > halving for halving in _HALVINGS)
