from __future__ import annotations

import numpy as np
import pytest

from sweep.analysis.statistics import Comparison, Interval, analyse, binomial, effect_size, holm


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def interval(verdicts: np.ndarray, draw: np.random.Generator, resamples: int = 2_000) -> Interval:
    return analyse([verdicts], draw, resamples)[0][0]


def compare(first: np.ndarray, second: np.ndarray, resamples: int = 2_000) -> Comparison:
    return analyse([first, second], rng(), resamples)[1][0]


def coins(seeds: int, examples: int, share: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((seeds, examples)) < share


def test_the_interval_of_one_seed_is_the_binomial_one() -> None:
    found = interval(coins(1, 1_000, 0.8), rng())
    error = np.sqrt(found.mean * (1 - found.mean) / 1_000)
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.003)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.003)


def test_seeds_that_differ_widen_the_interval() -> None:
    """Examples alone would say 0.5 within 0.02; the five networks lie between 0.3 and 0.7."""
    verdicts = np.stack([coins(1, 2_000, share, seed)[0] for seed, share in enumerate((0.3, 0.4, 0.5, 0.6, 0.7))])
    found = interval(verdicts, rng())
    assert found.low < 0.42
    assert found.high > 0.58


def test_intervals_hold_as_often_as_they_say() -> None:
    """100 experiments with a known truth: each network's own accuracy is drawn, then its verdicts."""
    draw = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        levels = draw.normal(0.7, 0.03, size=(10, 1))
        found = interval(draw.random((10, 400)) < levels, draw, resamples=400)
        held += found.low <= 0.7 <= found.high
    assert held >= 87  # 95 % would be 95; ten seeds make the interval a little too narrow


def test_pairing_finds_what_separate_intervals_hide() -> None:
    """One network fails on 12 images of 300 that the other one masters, and on no other: intervals overlap widely."""
    first = coins(1, 300, 0.8)
    second = first.copy()
    second[0, np.flatnonzero(first[0])[:12]] = False
    found = compare(first, second)
    assert found.difference.mean == pytest.approx(0.04)
    assert found.p < 0.01
    assert interval(second, rng()).high > interval(first, rng()).low


def test_equal_networks_show_no_difference() -> None:
    same = coins(3, 300, 0.8)
    found = compare(same, same)
    assert found.p > 0.5


def test_no_p_value_is_zero() -> None:
    found = compare(np.ones((2, 50), bool), np.zeros((2, 50), bool), resamples=999)
    assert found.p == pytest.approx(2 / 1_000)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_a_share_of_few_examples_has_an_interval_within_its_bounds() -> None:
    """Wilson's, as statsmodels and R's prop.test(correct=FALSE) give it."""
    assert binomial(0.9, 50) == pytest.approx((0.786398, 0.956524), abs=1e-6)
    assert binomial(1.0, 50) == pytest.approx((0.928652, 1.0), abs=1e-6)
    assert binomial(0.0, 50)[0] == 0.0


def test_effect_sizes_by_hand() -> None:
    assert effect_size(0.5, 0.5) == 0
    assert effect_size(1.0, 0.0) == pytest.approx(np.pi)
    assert effect_size(0.25, 0.75) == pytest.approx(-np.pi / 3)


def test_other_images_are_not_paired() -> None:
    with pytest.raises(ValueError, match="different examples"):
        compare(coins(1, 10, 0.5), coins(1, 11, 0.5))
