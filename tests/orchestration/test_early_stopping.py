"""Successive halving by hand: who goes on at which rung, and that a journal rebuilds the rungs."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.objective import Maximize, Minimize
from sweep.orchestration.early_stopping import Rungs
from sweep.study import Asha

GOAL = Maximize("accuracy")


def rungs(grace_period: int = 1, reduction_factor: int = 3, **rest: Any) -> Rungs:
    return Rungs(Asha(grace_period=grace_period, reduction_factor=reduction_factor, **rest), GOAL)


def judged(rule: Rungs, trial: int, resource: float, best: float) -> tuple[bool, dict[str, float]]:
    """A verdict, as it stands once it was recorded."""
    verdict = rule.judge(trial, resource, best)
    rule.record(trial, verdict[1])
    return verdict


def test_rungs_lie_at_powers_of_the_reduction_factor() -> None:
    assert list(islice(rungs(2, 3).rule.levels(), 4)) == [2, 6, 18, 54]
    assert list(islice(rungs(60_000, 4).rule.levels(), 3)) == [60_000, 240_000, 960_000]


# At one rung, one trial after another, with a reduction factor of 3: a value, and whether that trial goes on. The first
# two always do, then the best floor(n / 3) of the n that came.
BY_HAND = [
    (0.30, True),  # 1 value
    (0.10, True),  # 2 values
    (0.20, False),  # .30 .20 .10 -> the best 1: .30
    (0.40, True),  # .40 .30 .20 .10 -> the best 1: .40
    (0.30, False),  # 5 values -> the best 1
    (0.35, True),  # 6 values: .40 .35 .30 .30 .20 .10 -> the best 2
    (0.30, False),  # 7 values -> the best 2
    (0.35, True),  # 8 values: .40 .35 .35 ... -> the best 2: as good as the second
    (0.05, False),  # 9 values -> the best 3
    (0.35, True),
]


def test_the_table_by_hand() -> None:
    rule = rungs()
    for trial, (value, expected) in enumerate(BY_HAND):
        assert judged(rule, trial, 1, value) == (expected, {"1": value}), trial
    assert rule.populations() == {1: len(BY_HAND)}


@pytest.mark.parametrize("factor", [2, 3, 4, 10])
def test_the_first_few_always_go_on(factor: int) -> None:
    rule = rungs(reduction_factor=factor)
    for trial in range(factor - 1):
        assert judged(rule, trial, 1, -float(trial))[0]
    assert not judged(rule, 99, 1, -99.0)[0]


def test_a_suspect_trials_value_stops_nobody() -> None:
    rule = rungs()
    for trial, value in enumerate([0.9, 0.1, 0.1]):
        judged(rule, trial, 1, value)
    assert not judged(rule, 3, 1, 0.5)[0], "the value of trial 0 is in the way"
    rule.forget(0)
    assert judged(rule, 4, 1, 0.5)[0]


def test_a_trial_is_judged_once_at_each_rung() -> None:
    rule = rungs(2, 3)
    assert judged(rule, 7, 1, 0.5) == (True, {})  # before the first rung
    assert judged(rule, 7, 2, 0.5) == (True, {"2": 0.5})
    assert judged(rule, 7, 5, 0.9) == (True, {})  # between rungs
    assert judged(rule, 7, 6, 0.9) == (True, {"6": 0.9})
    assert rule.values == {2: {7: 0.5}, 6: {7: 0.9}}


def test_who_jumps_over_two_rungs_is_judged_at_both() -> None:
    rule = rungs(1, 3)
    for trial, value in enumerate([0.5, 0.6, 0.7]):
        rule.record(trial, {"1": value, "3": value})
    assert judged(rule, 9, 3.5, 0.65) == (False, {"1": 0.65, "3": 0.65})
    assert judged(rule, 10, 10, 0.75) == (True, {"1": 0.75, "3": 0.75, "9": 0.75})
    # It must pass every one of them: here the first, lower rung holds it back.
    rule = rungs(1, 2)
    rule.record(0, {"1": 0.9})
    assert judged(rule, 1, 2, 0.8) == (False, {"1": 0.8, "2": 0.8})


def test_what_is_not_finite_is_the_worst() -> None:
    rule = rungs()
    assert rule.value({"accuracy": math.nan}) == rule.value({}) == rule.value({"accuracy": math.inf}) == -math.inf
    for trial, value in enumerate([-math.inf, -math.inf, 0.0]):
        assert judged(rule, trial, 1, value)[0]  # two that are first, and one that is better
    assert not judged(rule, 3, 1, -math.inf)[0]


def test_a_goal_to_be_lowered() -> None:
    rule = Rungs(Asha(grace_period=1, reduction_factor=2), Minimize("loss"))
    values = [rule.value({"loss": loss}) for loss in (1.0, 2.0, 0.5)]
    assert values == [-1.0, -2.0, -0.5]
    assert [judged(rule, trial, 1, value)[0] for trial, value in enumerate(values)] == [True, False, True]


def test_the_first_rung_is_in_the_resources_own_unit() -> None:
    rule = rungs(1000, 2, resource="gradient_evaluations")
    assert judged(rule, 0, 999.5, 0.1) == (True, {})
    assert judged(rule, 0, 2400, 0.1) == (True, {"1000": 0.1, "2000": 0.1})


steps = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.floats(0, 1)), max_size=60)


@settings(deadline=None)
@given(steps, st.integers(2, 4))
def test_what_was_recorded_rebuilds_the_rungs(told: list[tuple[int, int, float]], factor: int) -> None:
    live, replayed = rungs(1, factor), rungs(1, factor)
    resource: dict[int, int] = {}
    for trial, more, best in told:
        resource[trial] = resource.get(trial, 0) + more
        _, recorded = judged(live, trial, resource[trial], best)
        replayed.record(trial, recorded)
    assert replayed.values == live.values
    assert judged(replayed, 99, 50, 0.5) == judged(live, 99, 50, 0.5)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 1), st.floats(0, 1), st.integers(2, 5))
def test_a_better_trial_is_never_stopped_where_a_worse_one_goes_on(
    before: list[float], one: float, other: float, factor: int
) -> None:
    def verdict(value: float) -> bool:
        rule = rungs(1, factor)
        for trial, found in enumerate(before):
            rule.record(trial, {"1": found})
        return judged(rule, 99, 1, value)[0]

    assert verdict(max(one, other)) or not verdict(min(one, other))
    assert verdict(max(before))
