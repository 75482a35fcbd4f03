from __future__ import annotations

from pydantic import Field

from sweep.alpha_rules.base import Measurement, RatioAlphaRule
from sweep.registry import register


@register("scaled_ratio")
class ScaledRatio(RatioAlphaRule):
    """scale * A_adv / (A_adv + A_clean), clipped: with 2, a network as accurate under attack as without has alpha 1."""

    scale: float = Field(default=2.0, gt=0, le=10, description="multiple of the paper's ratio")

    def weight(self, measurement: Measurement) -> float:
        return self.ratio(measurement.adversarial_accuracy, measurement.clean_accuracy, self.scale)
