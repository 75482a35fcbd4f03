from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sweep.alpha_rules.base import AlphaRule, Measurement
from sweep.registry import register


@register("fixed")
class Fixed(AlphaRule):
    """One weight throughout: 0 is adversarial training, 1 standard training, 0.5 Goodfellow et al. 2015.

    A sweep over it traces the trade-off between clean and adversarial accuracy that an adaptive rule has to beat.
    """

    alpha: float = Field(default=0.5, ge=0, le=1, description="weight of the clean loss")

    def value(self, progress: float, history: Sequence[Measurement]) -> float:
        return self.alpha
