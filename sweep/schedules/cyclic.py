from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sweep.registry import register
from sweep.schedules.base import Span


@register("cyclic")
class Cyclic(Span):
    """Triangles: from start to end and back, `num_cycles` times (Smith 2017). One cycle peaks at half of training."""

    num_cycles: int = Field(default=1, ge=1, le=100, description="triangles in all of training")

    def factor(self, progress: float, accuracies: Sequence[float] = ()) -> float:
        phase = (progress * self.num_cycles) % 1
        return self.between(1 - abs(2 * phase - 1))
