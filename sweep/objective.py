"""What a study looks for: a metric to raise or lower, and bounds on others. One ranking serves epochs and trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from sweep.registry import Record

# Ordered: anything feasible beats anything infeasible, and anything measured beats what is missing or not finite.
Rank = tuple[int, float]
WORST: Rank = (-1, -math.inf)


class Bound(Record):
    """A metric's allowed side."""

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _has_a_side(self) -> Bound:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("needs exactly one of at_least and at_most")
        return self

    def __str__(self) -> str:
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"

    def violation(self, value: float) -> float:
        """How far `value` is on the wrong side; zero or less where it is allowed."""
        return self.at_least - value if self.at_least is not None else value - (self.at_most or 0.0)


class AtLeast(Bound):
    """A lower bound: ``subject_to={"validation/clean_accuracy": AtLeast(0.9)}``."""

    def __init__(self, value: float, /) -> None:
        super().__init__(at_least=value)


class AtMost(Bound):
    """An upper bound."""

    def __init__(self, value: float, /) -> None:
        super().__init__(at_most=value)


class Goal(Record):
    """One metric to raise or lower, subject to bounds on others."""

    metric: str = Field(description="a metric that every trial reports, such as validation/pgd_10/adversarial_accuracy")
    direction: Literal["maximize", "minimize"] = "maximize"
    subject_to: dict[str, Bound] = Field(default_factory=dict, description="bounds on other metrics")

    def violations(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Each bound's violation (zero or less: kept); infinite where the metric is missing or not finite."""
        found = {}
        for name, bound in self.subject_to.items():
            value = metrics.get(name, math.nan)
            found[name] = bound.violation(value) if math.isfinite(value) else math.inf
        return found

    def rank(self, metrics: Mapping[str, float]) -> Rank:
        """The place of these metrics: greater is better."""
        value = metrics.get(self.metric, math.nan)
        if not math.isfinite(value):
            return WORST
        excess = sum(max(violation, 0.0) for violation in self.violations(metrics).values())
        if excess > 0:
            return (0, -excess)
        return (1, value if self.direction == "maximize" else -value)


class Maximize(Goal):
    """Raise a metric: ``Maximize("validation/pgd_10/adversarial_accuracy", subject_to={...})``."""

    def __init__(self, metric: str, /, subject_to: Mapping[str, Any] | None = None) -> None:
        super().__init__(metric=metric, direction="maximize", subject_to=dict(subject_to or {}))


class Minimize(Goal):
    """Lower a metric."""

    def __init__(self, metric: str, /, subject_to: Mapping[str, Any] | None = None) -> None:
        super().__init__(metric=metric, direction="minimize", subject_to=dict(subject_to or {}))
