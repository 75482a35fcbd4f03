"""Numbers that options take: one that is not allowed is refused in our own words, as everything else is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import typer

from sweep.errors import StudyError


def number(name: str, meaning: str, low: int, high: float = math.inf, kind: type[float] = int) -> Any:
    """The option `name`, a number from `low` to `high`, both included; `meaning` is its help."""
    return typer.Option(name, metavar="N", help=meaning, parser=_parser(name, low, high, kind))


def _parser(name: str, low: int, high: float, kind: type[float]) -> Callable[[Any], float]:
    allowed = f"from {low} to {high:g}" if high < math.inf else f"{low} or more"

    def parse(given: Any) -> float:
        try:
            value = kind(given)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise StudyError(f"{name} {given}: must be a {'whole ' if kind is int else ''}number, {allowed}")
        return value

    return parse
