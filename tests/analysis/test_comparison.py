from __future__ import annotations

import numpy as np
import pytest
from tiny_study import METRIC, ended, record, tiny

from sweep.analysis.comparison import Outcome, outcomes, pairs, verdict
from sweep.tracking.ledger import Ledger


def ledger(*told: tuple[str, float, float], end: str = "completed") -> Ledger:
    """Trials in order: defense, objective, gradient evaluations."""
    trials = {}
    for number, (defense, value, cost) in enumerate(told):
        trial = record(number, ({"defense": {"name": defense}}, {}, {}))
        report = {METRIC: value, "validation/clean_accuracy": 0.9, "gradient_evaluations": cost}
        trials[number] = ended(trial, end, {1: report})
    return Ledger(trials)


def withstood(share: float) -> np.ndarray:
    return np.arange(300) < 300 * share


def test_what_came_later_does_not_count() -> None:
    """The winner's best trial came after it had spent thrice what the other one had."""
    found = ledger(("trades", 0.4, 100), ("trades", 0.5, 100), ("trades", 0.9, 100), ("standard", 0.6, 150))
    (pair,) = pairs(tiny(), found)
    assert (pair.defense, pair.other, pair.cost) == ("trades", "standard", 150)
    assert pair.first and pair.second
    assert (pair.first.number, pair.second.number) == (0, 3)
    (one,) = outcomes(tiny(), [pair], {0: withstood(0.4), 3: withstood(0.6)})
    assert one.difference and one.difference.mean == pytest.approx(-0.2)
    assert "trades is worse than standard by 0.200, a small effect" in verdict([one])[0]


def test_nothing_is_said_of_what_had_no_trial_or_no_network() -> None:
    found = ledger(("trades", 0.9, 300), ("standard", 0.6, 100))
    (pair,) = pairs(tiny(), found)
    assert pair.first is None
    assert (
        "trades had no completed trial that counts: of trades and standard nothing can be said"
        in verdict([Outcome(pair)])[0]
    )
    found = ledger(("trades", 0.9, 100), ("standard", 0.6, 100))
    (one,) = outcomes(tiny(), pairs(tiny(), found), {0: withstood(0.9)})
    assert "nothing can be said without their networks" in verdict([one])[0]


def test_equal_networks_show_no_difference_and_the_correction_counts_all() -> None:
    found = ledger(("trades", 0.8, 100), ("standard", 0.8, 100), ("hybrid", 0.77, 100))
    verdicts = {0: withstood(0.8), 1: withstood(0.8), 2: withstood(0.77)}
    compared = outcomes(tiny(), pairs(tiny(), found), verdicts)
    alone = outcomes(tiny(), [one.pair for one in compared if one.pair.other == "hybrid"], verdicts)
    sentences = verdict(compared)
    assert any("no difference between trades and standard is shown" in sentence for sentence in sentences)
    together = next(one for one in compared if one.pair.other == "hybrid")
    assert together.p_holm and alone[0].p_holm and together.p_holm > alone[0].p_holm


def test_a_suspect_or_stopped_trial_is_no_best() -> None:
    assert pairs(tiny(), ledger(("trades", 0.9, 100), ("standard", 0.6, 100), end="stopped")) == []
    assert "nothing to compare" in verdict([])[0]
