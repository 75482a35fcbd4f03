"""An alpha rule weighs the hybrid defense's two losses: L = alpha L_clean + (1 - alpha) L_adv, alpha in [0, 1].

Rules hold no state: what happened before comes in as the epochs' measurements, so a resumed trial goes on unchanged.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from sweep.registry import Component, named


@dataclass(frozen=True)
class Measurement:
    """What one epoch left behind: accuracies are fractions in [0, 1], losses mean cross-entropies in nats."""

    clean_accuracy: float
    adversarial_accuracy: float
    clean_loss: float
    adversarial_loss: float


class AlphaRule(Component):
    """How the clean loss's weight is found. (Pang et al. 2021 weigh the adversarial loss: their alpha is 1 - ours.)"""

    kind: ClassVar[str] = "alpha_rule"
    measures: ClassVar[bool] = False  # whether it looks at the measurements

    @abstractmethod
    def value(self, progress: float, history: Sequence[Measurement]) -> float:
        """Alpha, the clean loss's weight, at `progress` in [0, 1] of training, after the epochs measured so far."""


class MeasuredAlphaRule(AlphaRule):
    """A rule that follows the measurements of each epoch, with one epoch's lag.

    The paper does not say at which radius Accuracy_adv is measured while epsilon ramps. At the epoch's own radius alpha
    begins near 1/2, where the attack is weak, and falls as epsilon grows: the opposite of section 3.2's "prioritizes
    robustness when adversarial accuracy is low and shifts focus back to accuracy on clean data as robustness improves".
    At the full radius it is low until robustness is learnt and then rises, as that sentence says: hence `target`.
    """

    measures: ClassVar[bool] = True

    measured_at: Literal["current", "target"] = Field(
        default="target",
        description="radius of the measuring attack: the epoch's own, or the one that the schedule leads to",
    )
    split: Literal["validation", "train"] = Field(
        default="validation",
        description="where: validation, or the epoch's own training batches (free; always at the current radius)",
    )
    initial: float = Field(default=0.5, ge=0, le=1, description="alpha before the first measurement")
    momentum: float = Field(
        default=0.0, ge=0, lt=1, description="share of the running average that an epoch keeps; 0: no average"
    )
    minimum: float = Field(default=0.0, ge=0, le=1, description="alpha never lies below")
    maximum: float = Field(default=1.0, ge=0, le=1, description="alpha never lies above")

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.minimum >= self.maximum:
            given = f"minimum must lie below maximum, got {self.minimum:g} and {self.maximum:g}"
            raise ValueError(f"{given}; for one weight throughout use the alpha rule 'fixed'")
        return self

    @abstractmethod
    def weight(self, measurement: Measurement) -> float:
        """What one epoch alone asks for; clipped by the caller."""

    def value(self, progress: float, history: Sequence[Measurement]) -> float:
        # The average begins at the first measurement, not at `initial`: a long memory should not hold on to a guess.
        average = None
        for measurement in history:
            weight = self._clip(self.weight(measurement))
            average = weight if average is None else weight + self.momentum * (average - weight)
        return self._clip(self.initial if average is None else average)

    def _clip(self, value: float) -> float:
        return min(max(value, self.minimum), self.maximum)


class RatioAlphaRule(MeasuredAlphaRule):
    """A rule that is one measured term's share of two."""

    smoothing: float = Field(
        default=0.0, ge=0, le=1, description="added to both terms; 1/n counts as one example more in n"
    )
    undefined: float = Field(default=0.5, ge=0, le=1, description="alpha where both terms are 0 (0/0)")

    def ratio(self, term: float, other: float, scale: float = 1.0) -> float:
        """scale * term / (term + other), smoothed."""
        total = term + other + 2 * self.smoothing
        return scale * (term + self.smoothing) / total if total > 0 else self.undefined


NamedAlphaRule = Annotated[SerializeAsAny[AlphaRule], named("alpha_rule")]
