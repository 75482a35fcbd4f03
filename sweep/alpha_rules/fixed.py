from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from sweep.alpha_rules.base import AlphaRule, Measurement
from sweep.registry import register


@register("fixed")
class Fixed(AlphaRule):
    """One weight throughout: 0 is adversarial training, 1 standard training, 0.5 Goodfellow et al. 2015.

    A sweep over it traces the trade-off between clean and adversarial accuracy that an adaptive rule has to beat.
    """

    # Configurations say `alpha`; the attribute cannot, because that is the method's name.
    model_config = ConfigDict(populate_by_name=True)

    value: float = Field(default=0.5, alias="alpha", ge=0, le=1, description="alpha")

    @model_serializer(mode="wrap")
    def _with_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"name": self.name, "alpha": self.value}

    def value(self, progress: float, history: Sequence[Measurement]) -> float:
        return self.value
