from __future__ import annotations

import math

from pydantic import Field

from sweep.registry import register
from sweep.schedules.base import Ramp


@register("sigmoid")
class Sigmoid(Ramp):
    """sigmoid(steepness (p - 1/2)), stretched so that it meets start and end exactly."""

    steepness: float = Field(
        default=10.0, ge=0.1, le=100, description="near 0 it is linear; the higher, the nearer to one step"
    )

    def at(self, position: float) -> float:
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, whose stretched form is symmetric and needs one division.
        height = math.tanh(self.steepness * (position - 0.5) / 2) / math.tanh(self.steepness / 4)
        return self.between((1 + height) / 2)
