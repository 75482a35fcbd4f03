"""Domains: the sets of values that a search space searches. Plain data; the sampler gives them their meaning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from sweep.registry import Record

Scalar = bool | int | float | str | None


class Domain(Record):
    """A set of values to search."""

    domain: str = ""

    def representatives(self) -> list[Any]:
        """Values which are allowed configurations exactly if the whole domain is: its ends, or all of it."""
        raise NotImplementedError

    def __contains__(self, value: object) -> bool:
        return value in self.representatives()

    def describe(self) -> str:
        return ", ".join(str(value) for value in self.representatives())


class Interval(Domain):
    """Numbers from `low` to `high`, both included; on a logarithmic scale where `log`."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_ordered(self) -> Interval:
        if not self.low < self.high:
            raise ValueError(f"low < high must hold, but got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic scale begins above 0, but low is {self.low}")
        return self

    def representatives(self) -> list[Any]:
        return [self.low, self.high]

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def describe(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", log scale" if self.log else "")


class Uniform(Interval):
    """Real numbers, each equally likely: ``Uniform(0.02, 0.2)``."""

    domain: Literal["uniform"] = "uniform"

    def __init__(self, low: float, high: float, **rest: Any) -> None:
        super().__init__(low=low, high=high, **rest)


class LogUniform(Interval):
    """Positive real numbers whose logarithms are equally likely: ``LogUniform(1e-3, 0.3)``."""

    domain: Literal["log_uniform"] = "log_uniform"
    log: bool = True

    def __init__(self, low: float, high: float, **rest: Any) -> None:
        super().__init__(low=low, high=high, **rest)


class Integer(Interval):
    """Whole numbers: ``Integer(1, 20)``."""

    domain: Literal["integer"] = "integer"
    low: int
    high: int

    def __init__(self, low: int, high: int, **rest: Any) -> None:
        super().__init__(low=low, high=high, **rest)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and super().__contains__(value)


class Choice(Domain):
    """One of several plain values: ``Choice(1, 3, 7)``. Components with parameters of their own are a `OneOf`."""

    domain: Literal["choice"] = "choice"
    options: tuple[Scalar, ...]

    def __init__(self, *options: Scalar, **rest: Any) -> None:
        written = rest.pop("options", options)  # JSON has lists only
        super().__init__(**{"options": tuple(written) if isinstance(written, list) else written, **rest})

    @model_validator(mode="after")
    def _has_distinct_options(self) -> Choice:
        if len(set(map(repr, self.options))) < max(len(self.options), 2):
            raise ValueError(f"needs at least two different options, but got {list(self.options)}")
        return self

    def representatives(self) -> list[Any]:
        return list(self.options)
