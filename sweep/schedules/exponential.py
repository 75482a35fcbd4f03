from __future__ import annotations

from pydantic import Field

from sweep.registry import register
from sweep.schedules.base import Ramp


@register("exponential")
class Exponential(Ramp):
    """start^(1 - p) end^p: equal ratios in equal times, so both ends lie above 0."""

    start: float = Field(gt=0, le=4, description="factor at the beginning; 0.1 for epsilon in Delviz et al. 2024")
    end: float = Field(default=1.0, gt=0, le=4, description="factor it leads to")

    def at(self, position: float) -> float:
        return float(self.start ** (1 - position) * self.end**position)
