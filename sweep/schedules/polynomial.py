from __future__ import annotations

from pydantic import Field

from sweep.registry import register
from sweep.schedules.base import Ramp


@register("polynomial")
class Polynomial(Ramp):
    """start + (end - start) p^power."""

    power: float = Field(
        default=2.0, ge=0.1, le=10, description="above 1 it moves late, below 1 early, at 1 it is linear"
    )

    def at(self, position: float) -> float:
        return self.between(float(position**self.power))
