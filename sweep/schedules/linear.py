from __future__ import annotations

from sweep.registry import register
from sweep.schedules.base import Ramp


@register("linear")
class Linear(Ramp):
    """start + (end - start) p: the plainest reading of "gradually increase" (Delviz et al. 2024, Algorithm 1)."""

    def at(self, position: float) -> float:
        return self.between(position)
