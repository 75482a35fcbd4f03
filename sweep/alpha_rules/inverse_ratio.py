from __future__ import annotations

from sweep.alpha_rules.base import Measurement, RatioAlphaRule
from sweep.registry import register


@register("inverse_ratio")
class InverseRatio(RatioAlphaRule):
    """A_clean / (A_adv + A_clean): the paper's ratio the other way round, at least 1/2 where clean accuracy leads."""

    def weight(self, measurement: Measurement) -> float:
        return self.ratio(measurement.clean_accuracy, measurement.adversarial_accuracy)
