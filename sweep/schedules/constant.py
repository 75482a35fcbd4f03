from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sweep.registry import register
from sweep.schedules.base import Schedule


@register("constant")
class Constant(Schedule):
    """One factor throughout: what every other schedule has to beat.

    A linear ramp from 0.1 trains with 0.55 of epsilon on average. Constant at value=0.55 gives that dose in another
    shape, and so tells the effect of the shape from that of the dose.
    """

    value: float = Field(default=1.0, gt=0, le=4, description="factor")

    def factor(self, progress: float, accuracies: Sequence[float] = ()) -> float:
        return self.value
