"""Objectives: one ranking for epochs, rungs and trials, in which nothing unmeasured can be best."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sweep.objective import WORST, AtLeast, AtMost, Bound, Goal, Maximize, Minimize

anything = st.floats(allow_nan=True, allow_infinity=True)
metrics = st.dictionaries(st.sampled_from(["value", "clean"]), anything)
GOAL = Maximize("value", subject_to={"clean": AtLeast(0.9)})


def test_a_bound_has_one_side() -> None:
    assert AtLeast(0.9).violation(0.8) == pytest.approx(0.1)
    assert AtLeast(0.9).violation(0.95) == pytest.approx(-0.05)
    assert AtMost(2.0).violation(3.5) == 1.5
    assert AtMost(0.0).violation(-1.0) == -1.0
    for given_sides in ({}, {"at_least": 0.1, "at_most": 0.2}):
        with pytest.raises(ValidationError, match="exactly one"):
            Bound(**given_sides)
    with pytest.raises(ValidationError):
        AtLeast(math.nan)


def test_greater_is_better_and_smaller_where_it_says_so() -> None:
    assert Maximize("value").rank({"value": 0.6}) > Maximize("value").rank({"value": 0.5})
    assert Minimize("value").rank({"value": 0.5}) > Minimize("value").rank({"value": 0.6})


def test_the_feasible_comes_first_then_the_least_violation() -> None:
    order = [
        {"value": 0.5, "clean": 0.95},
        {"value": 0.1, "clean": 0.9},  # at the bound is within it
        {"value": 0.9, "clean": 0.85},
        {"value": 0.99, "clean": 0.2},
        {"value": 0.99},  # a bound that nothing was measured for is violated without end
        {"clean": 0.99},
    ]
    ranks = [GOAL.rank(found) for found in order]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == len(ranks)
    assert ranks[-1] == WORST


@settings(deadline=None)
@given(metrics)
def test_what_is_not_finite_ranks_last_and_nothing_ranks_below_it(found: dict[str, float]) -> None:
    rank = GOAL.rank(found)
    assert rank >= WORST
    assert not math.isnan(rank[1])
    assert (rank == WORST) == (not math.isfinite(found.get("value", math.nan)))
    assert (rank[0] == 1) == (rank > WORST and found.get("clean", -1) >= 0.9 and math.isfinite(found["clean"]))


def test_violations_are_infinite_where_nothing_was_measured() -> None:
    assert GOAL.violations({"clean": 1.0}) == {"clean": pytest.approx(-0.1)}
    assert GOAL.violations({}) == GOAL.violations({"clean": math.nan}) == {"clean": math.inf}


def test_json_and_back() -> None:
    for goal in (GOAL, Minimize("seconds", subject_to={"clean": AtMost(0.5)})):
        again = Goal.model_validate(goal.model_dump(mode="json"))
        assert again.model_dump() == goal.model_dump()
        assert again.rank({"value": 1, "seconds": 2, "clean": 1}) == goal.rank({"value": 1, "seconds": 2, "clean": 1})
