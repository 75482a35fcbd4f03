from __future__ import annotations

import math

from sweep.registry import register
from sweep.schedules.base import Ramp


@register("cosine")
class Cosine(Ramp):
    """Half a cosine, flat at both ends; from 1 to 0, a usual decay of learning rates (Loshchilov and Hutter 2017)."""

    def at(self, position: float) -> float:
        return self.between((1 - math.cos(math.pi * position)) / 2)
