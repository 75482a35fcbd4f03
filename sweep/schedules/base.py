"""A schedule is a number from training progress: the multiple of epsilon, or of the learning rate, to train with now.

Schedules hold no state, so a resumed trial goes on with the very values that it would have had.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import Field, SerializeAsAny, model_validator

from sweep.registry import Component, named

_POINTS = 1000  # of the grid on which a schedule is searched for a sharp drop
_WINDOW = 50  # of those points: a twentieth of training
_ROUNDING = 1e-9  # floats put 0.3 before 0.1 + 0.2, yet an epoch on the end of its ramp is at the end


class Schedule(Component):
    """How a training value moves. Every factor lies in [0, 4]: above 1 the value overshoots its base."""

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def factor(self, progress: float, accuracies: Sequence[float] = ()) -> float:
        """The multiple of the base value at `progress` in [0, 1] of training.

        `accuracies` are the adversarial accuracies of the epochs so far; only `adaptive` looks at them.
        """

    def first_sharp_drop(self) -> float | None:
        """The progress by which the factor has lost half of its peak within a twentieth of training, to 1/1000.

        None if it never does: a smooth decay has no such moment. Before a sharp drop of the learning rate, ranks of
        adversarially trained networks say almost nothing about the end, so an early-stopping rung should not lie there.
        """
        values = [self.factor(point / _POINTS) for point in range(_POINTS + 1)]
        peak = max(values)
        for point, value in enumerate(values):
            if max(values[max(point - _WINDOW, 0) : point + 1]) - value >= peak / 2:
                return point / _POINTS
        return None


class Span(Schedule):
    """A schedule between two different factors."""

    start: float = Field(ge=0, le=4, description="factor at the beginning; 0.1 for epsilon in Delviz et al. 2024")
    end: float = Field(default=1.0, ge=0, le=4, description="factor it leads to")

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start:g}: use the schedule 'constant'")
        return self

    def between(self, share: float) -> float:
        """The factor after `share` in [0, 1] of the way from start to end."""
        return self.start + (self.end - self.start) * share


class Ramp(Span):
    """Stays at `start` for `hold`, goes to `end` within `ramp`, and stays there. Never turns back."""

    hold: float = Field(default=0.0, ge=0, lt=1, description="fraction of training spent at start first")
    ramp: float = Field(default=1.0, gt=0, le=1, description="fraction of training from start to end")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hold + self.ramp > 1 + _ROUNDING:
            given = f"hold + ramp must be at most 1, got {self.hold:g} + {self.ramp:g}"
            raise ValueError(f"{given}: with this hold, ramp can be at most {1 - self.hold:g}")
        return self

    def factor(self, progress: float, accuracies: Sequence[float] = ()) -> float:
        if progress <= self.hold:
            return self.start
        if progress >= self.hold + self.ramp - _ROUNDING:
            return self.end
        low, high = sorted((self.start, self.end))
        return min(max(self.at((progress - self.hold) / self.ramp), low), high)

    @abstractmethod
    def at(self, position: float) -> float:
        """The factor at `position` in (0, 1) of the ramp."""


NamedSchedule = Annotated[SerializeAsAny[Schedule], named("schedule")]
