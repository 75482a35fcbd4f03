from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from sweep.registry import register
from sweep.schedules.base import Schedule


@register("step")
class Step(Schedule):
    """Multiplied by gamma at each milestone, as learning rates are dropped (Rice et al. 2020: /10 at 1/2 and at 3/4).

    A gamma above 1 raises epsilon in steps: start=0.25, milestones=(0.25, 0.5), gamma=2 gives 1/4, 1/2 and all of it.
    """

    milestones: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        default=(0.5, 0.75),
        min_length=1,
        max_length=50,
        description="fractions of training, increasing, each between 0 and 1",
    )
    gamma: float = Field(default=0.1, ge=0.001, le=10, description="what the factor is multiplied by at each milestone")
    start: float = Field(default=1.0, gt=0, le=4, description="factor before the first milestone")

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if any(earlier >= later for earlier, later in pairwise((0.0, *self.milestones, 1.0))):
            raise ValueError(f"milestones must increase and lie between 0 and 1, got {self.milestones}")
        if self.gamma == 1:
            raise ValueError("gamma 1 changes nothing: use the schedule 'constant'")
        last = self.start * self.gamma ** len(self.milestones)
        if last > 4:
            raise ValueError(
                f"start and gamma lead to a factor of {last:g}; at most 4 is allowed: lower gamma or start"
            )
        return self

    def factor(self, progress: float, accuracies: Sequence[float] = ()) -> float:
        return float(self.start * self.gamma ** bisect_right(self.milestones, progress))
