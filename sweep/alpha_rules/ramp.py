from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from sweep.alpha_rules.base import AlphaRule, Measurement
from sweep.registry import register


@register("ramp")
class Ramp(AlphaRule):
    """From `alpha_start` to `alpha_end` over all of training, whatever is measured: the control for adaptive rules."""

    alpha_start: float = Field(ge=0, le=1, description="alpha at the beginning")
    alpha_end: float = Field(ge=0, le=1, description="alpha at the end")
    shape: Literal["linear", "cosine"] = Field(
        default="linear", description="straight, or half a cosine, flat at both ends"
    )

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.alpha_start == self.alpha_end:
            raise ValueError(f"alpha_start and alpha_end are both {self.alpha_start:g}: use the alpha rule 'fixed'")
        return self

    def value(self, progress: float, history: Sequence[Measurement]) -> float:
        share = progress if self.shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return (1 - share) * self.alpha_start + share * self.alpha_end
