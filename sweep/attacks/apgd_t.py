from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from sweep.attacks.adaptive_ascent import worst_climb
from sweep.attacks.base import TINY, Adversary, Attack, Objective, margin
from sweep.registry import register


@register("apgd_t")
class APGDT(Attack):
    """Auto-PGD towards the likeliest other classes, one after the other (Croce and Hein 2020, section 4.2).

    It raises the targeted DLR, (z_t - z_y) / (z_1 - (z_3 + z_4) / 2) of the sorted logits. With fewer classes than
    targets it takes all the others; with fewer than four there is no z_4, and it raises z_t - z_y itself.
    """

    num_steps: int = Field(100, ge=1, le=10_000, description="gradient steps per target and restart")
    num_targets: int = Field(9, ge=1, le=1_000, description="classes aimed at, the likeliest first; at most all others")
    num_restarts: int = Field(1, ge=1, le=1_000, description="independent starts for each target")

    @property
    def label(self) -> str:
        restarts = f"x{self.num_restarts}" if self.num_restarts > 1 else ""
        targets = f"_{self.num_targets}_targets" if self.num_targets != 9 else ""
        return f"apgd_t_{self.num_steps}{restarts}{targets}"

    @property
    def gradient_evaluations(self) -> int:
        return self.num_steps * self.num_targets * self.num_restarts

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
        return worst_climb(
            network,
            images,
            labels,
            adversary,
            self._goals(network, images, labels, objective),
            harm=objective or margin,
            num_steps=self.num_steps,
            until_broken=until_broken,
        )

    def _goals(
        self, network: nn.Module, images: Tensor, labels: Tensor, objective: Objective | None
    ) -> Iterator[tuple[Objective, Tensor]]:
        with torch.no_grad():
            others = network(images).scatter(1, labels[:, None], -torch.inf)
        likeliest = others.argsort(1, descending=True)[:, : min(self.num_targets, others.shape[1] - 1)]
        for target in likeliest.unbind(1):
            pair = torch.stack([labels, target], 1)
            for _ in range(self.num_restarts):
                yield (objective, labels) if objective else (towards, pair)


def towards(logits: Tensor, pair: Tensor) -> Tensor:
    """The targeted DLR, for [N, 2] true and target classes; z_t - z_y where there are fewer than four classes."""
    true, target = logits.gather(1, pair).unbind(1)
    if logits.shape[1] < 4:
        return target - true
    first, _, third, fourth = logits.topk(4, 1).values.unbind(1)
    return (target - true) / (first - (third + fourth) / 2 + TINY)
