from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sweep.attacks.adaptive_ascent import worst_climb
from sweep.attacks.base import OBJECTIVES, Adversary, Attack, Objective
from sweep.registry import register


@register("apgd")
class APGD(Attack):
    """Auto-PGD: momentum, and a step size that halves where progress stalls, so that there is none to choose
    (Croce and Hein 2020, Algorithm 1)."""

    num_steps: int = Field(100, ge=1, le=10_000, description="gradient steps per restart")
    num_restarts: int = Field(1, ge=1, le=1_000, description="independent starts; an example counts its worst")
    loss: Literal["cross_entropy", "dlr"] = Field("cross_entropy", description="what is raised; dlr needs 3 classes")

    @property
    def label(self) -> str:
        restarts = f"x{self.num_restarts}" if self.num_restarts > 1 else ""
        return f"apgd_{self.num_steps}{restarts}" + ("_dlr" if self.loss == "dlr" else "")

    @property
    def gradient_evaluations(self) -> int:
        return self.num_steps * self.num_restarts

    @property
    def fewest_classes(self) -> int:
        return 3 if self.loss == "dlr" else 2

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
        objective = objective or OBJECTIVES[self.loss]
        return worst_climb(
            network,
            images,
            labels,
            adversary,
            [(objective, labels)] * self.num_restarts,
            harm=objective,
            num_steps=self.num_steps,
            until_broken=until_broken,
        )
