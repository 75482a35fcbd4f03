from __future__ import annotations

from pydantic import Field

from sweep.alpha_rules.base import MeasuredAlphaRule, Measurement
from sweep.registry import register


@register("gap_proportional")
class GapProportional(MeasuredAlphaRule):
    """base - slope (A_clean - A_adv), clipped: a wide robustness gap moves weight to the adversarial loss."""

    base: float = Field(default=0.5, ge=0, le=1, description="alpha where both accuracies are equal")
    slope: float = Field(
        default=0.5, ge=-10, le=10, description="fall of alpha per unit of gap; negative: a wide gap favours clean"
    )

    def weight(self, measurement: Measurement) -> float:
        return self.base - self.slope * (measurement.clean_accuracy - measurement.adversarial_accuracy)
