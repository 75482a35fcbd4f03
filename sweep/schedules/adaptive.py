from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from sweep.registry import register
from sweep.schedules.base import Span


@register("adaptive")
class Adaptive(Span):
    """Grows after each epoch whose adversarial accuracy reaches `threshold`, waits after the others, stops at `end`.

    The closed-loop reading of Delviz et al. 2024, section 3.1 ("based on the model's training progress"); curriculum
    adversarial training begins its next lesson in the same way (Cai et al. 2018). Replayed from the accuracies.
    """

    threshold: float = Field(
        default=0.5, ge=0, le=1, description="adversarial accuracy, a fraction, that an epoch must reach"
    )
    increment: float = Field(default=0.1, gt=0, le=4, description="added to the factor after such an epoch")
    rate: float | None = Field(
        default=None, gt=0, le=10, description="relative growth, factor * (1 + rate); replaces increment"
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.start > self.end:
            raise ValueError(f"start must lie below end, as 'adaptive' only grows; got {self.start:g} and {self.end:g}")
        if self.rate is not None and self.start == 0:
            raise ValueError("start 0 cannot grow by a rate: raise start, or use increment")
        return self

    def factor(self, progress: float, accuracies: Sequence[float] = ()) -> float:
        factor = self.start
        for accuracy in accuracies:
            if accuracy >= self.threshold:
                factor = min(factor + self.increment if self.rate is None else factor * (1 + self.rate), self.end)
        return factor
