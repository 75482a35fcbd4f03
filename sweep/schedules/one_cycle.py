from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sweep.registry import register
from sweep.schedules.base import Schedule


@register("one_cycle")
class OneCycle(Schedule):
    """Straight up to the full base value, straight down to `end` (Smith and Topin 2019).

    The defaults are the "superconverge" schedule of adversarial training's own code: 0, the peak at 2/5 of training, 0
    (Wong et al. 2020, fast_adversarial; Rice et al. 2020, robust_overfitting).
    """

    start: float = Field(default=0.0, ge=0, lt=1, description="factor at the beginning")
    end: float = Field(default=0.0, ge=0, lt=1, description="factor at the end")
    peak_at: float = Field(default=0.4, gt=0, lt=1, description="fraction of training at which the factor is 1")

    def factor(self, progress: float, accuracies: Sequence[float] = ()) -> float:
        if progress <= self.peak_at:
            return self.start + (1 - self.start) * (progress / self.peak_at)
        return self.end + (1 - self.end) * (1 - progress) / (1 - self.peak_at)
