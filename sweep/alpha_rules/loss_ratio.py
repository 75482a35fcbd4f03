from __future__ import annotations

from pydantic import Field

from sweep.alpha_rules.base import Measurement, RatioAlphaRule
from sweep.registry import register


@register("loss_ratio")
class LossRatio(RatioAlphaRule):
    """L_adv / (L_adv + L_clean): a large adversarial loss moves weight to the clean one; or the inverse."""

    inverse: bool = Field(
        default=False, description="L_clean / (L_adv + L_clean) instead: weight goes to the larger loss"
    )

    def weight(self, measurement: Measurement) -> float:
        if self.inverse:
            return self.ratio(measurement.clean_loss, measurement.adversarial_loss)
        return self.ratio(measurement.adversarial_loss, measurement.clean_loss)
