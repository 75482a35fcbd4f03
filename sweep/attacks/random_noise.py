from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from sweep.attacks.base import Adversary, Attack, Objective, ask, margin
from sweep.registry import register


@register("random_noise")
class RandomNoise(Attack):
    """The worst of many points drawn from the ball: what no real attack may do less than (Carlini et al. 2019, 5.2).

    It is a control and breaks little by itself. Where it breaks what a gradient's attack does not, that attack failed.
    """

    num_draws: int = Field(10_000, ge=1, le=10_000_000, description="points drawn from the ball around each image")

    @property
    def label(self) -> str:
        return f"random_noise_{self.num_draws}"

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
        """The draws of the highest objective (the margin); with `until_broken`, the first that is misclassified."""
        objective = objective or margin
        worst = images.clone()
        highest = images.new_full((len(images),), -torch.inf)
        rows = torch.arange(len(images), device=images.device)
        for _ in range(self.num_draws):
            if not len(rows):
                break
            # For the whole batch, so that what an example meets never depends on its neighbours' fates.
            drawn = adversary.threat_model.random_start(images, adversary.epsilon, adversary.generator)[rows]
            reached, broken = ask(network, drawn, labels[rows], objective)
            better = (reached > highest[rows]) | (broken & until_broken)
            worst[rows[better]], highest[rows[better]] = drawn[better], reached[better]
            rows = rows[~broken] if until_broken else rows
        return worst
