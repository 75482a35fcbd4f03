from __future__ import annotations

from sweep.alpha_rules.base import Measurement, RatioAlphaRule
from sweep.registry import register


@register("paper_ratio")
class PaperRatio(RatioAlphaRule):
    """A_adv / (A_adv + A_clean) (Delviz et al. 2024, section 3.2).

    At most 1/2 whenever the adversarial accuracy does not exceed the clean one: the clean loss is never favoured, and
    "shifts focus back to clean data" can only mean back to equal weights.
    """

    def weight(self, measurement: Measurement) -> float:
        return self.ratio(measurement.adversarial_accuracy, measurement.clean_accuracy)
