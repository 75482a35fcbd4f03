"""Defenses at equal cost: what each had reached when its own trials had cost as much as the other's.

The defense with the best trial is held against each other one, at the cost that both had spent. Their networks of that
time are compared on the same validation images. These images chose the trials, and each is one seed: what is found
here is worth a confirmation, and is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweep.analysis.results import best_by_defense
from sweep.analysis.statistics import SURE, Interval, analyse, effect_size, holm
from sweep.objective import Goal
from sweep.seeding import derive
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

_WORDS = ((0.2, "negligible"), (0.5, "small"), (0.8, "medium"), (float("inf"), "large"))  # Cohen's h, upper ends


@dataclass(frozen=True)
class Pair:
    """Two defenses when each had cost so much: the best completed trial of each until then, where there was one."""

    cost: float  # in gradient evaluations
    defense: str
    other: str
    first: TrialRecord | None
    second: TrialRecord | None


@dataclass(frozen=True)
class Outcome:
    """A pair, and what the images say of it: nothing where one has no trial, or no network was kept."""

    pair: Pair
    difference: Interval | None = None  # the first's accuracy under the search's attack less the second's
    effect: float | None = None  # Cohen's h
    p_holm: float | None = None

    @property
    def size(self) -> str:
        """The effect's size in a word."""
        return next(word for end, word in _WORDS if abs(self.effect or 0.0) < end)


def course(goal: Goal, ledger: Ledger, defense: str) -> list[tuple[float, TrialRecord | None]]:
    """What the defense's trials had cost, in gradient evaluations, after each of them, and the best completed one."""
    spent, best, told = 0.0, None, []
    for trial in ledger:
        if trial.defense != defense:
            continue
        spent += trial.gradient_evaluations
        counts = not trial.is_suspect and trial.rank(goal)[0] == 1
        if counts and (best is None or trial.rank(goal) > best.rank(goal)):
            best = trial
        told.append((spent, best))
    return told


def pairs(study: Study, ledger: Ledger) -> list[Pair]:
    """The defense of the best trial against each other one, at the cost that both had spent."""
    goal = study.objective[0]
    ranked = [trial for trial in best_by_defense(ledger, goal) if trial.rank(goal)[0] == 1]
    if not ranked:
        return []
    names = sorted({trial.defense for trial in ledger})
    courses = {name: course(goal, ledger, name) for name in names}
    winner = ranked[0].defense
    costs = {name: min(courses[winner][-1][0], courses[name][-1][0]) for name in names if name != winner}
    return [
        Pair(cost, winner, name, _best_until(courses[winner], cost), _best_until(courses[name], cost))
        for name, cost in costs.items()
    ]


def outcomes(study: Study, found: Sequence[Pair], verdicts: Mapping[int, NDArray[np.bool_]]) -> list[Outcome]:
    """Each pair on the same images. `verdicts` are booleans [examples] of trials: who withstood the search's attack."""
    asked, compared = [], []
    for pair in found:
        if pair.first and pair.second and {pair.first.number, pair.second.number} <= verdicts.keys():
            rows = [verdicts[trial.number][None] for trial in (pair.first, pair.second)]
            rng = np.random.default_rng(derive(study.seed, "equal cost", pair.other))
            asked.append(pair)
            compared.append((analyse(rows, rng)[1][0], effect_size(float(rows[0].mean()), float(rows[1].mean()))))
    corrected = holm([comparison.p for comparison, _ in compared])
    told = {
        pair.other: Outcome(pair, comparison.difference, effect, p)
        for pair, (comparison, effect), p in zip(asked, compared, corrected, strict=True)
    }
    return [told.get(pair.other, Outcome(pair)) for pair in found]


def verdict(found: Sequence[Outcome]) -> list[str]:
    """What may be said of defenses at equal cost, in words; also where nothing can be."""
    if not found:
        return ["Fewer than two defenses were tried, or no trial counts: there is nothing to compare."]
    return [_sentence(one) for one in found]


def _sentence(one: Outcome) -> str:
    pair = one.pair
    at = f"After {pair.cost:,.0f} gradient evaluations each"
    empty = [name for name, trial in ((pair.defense, pair.first), (pair.other, pair.second)) if trial is None]
    if empty:
        none = f"{' and '.join(empty)} had no completed trial that counts"
        return f"{at}, {none}: of {pair.defense} and {pair.other} nothing can be said."
    if one.difference is None or one.p_holm is None:
        return f"{at}: of {pair.defense} and {pair.other} nothing can be said without their networks."
    if one.p_holm >= SURE:
        return f"{at}, no difference between {pair.defense} and {pair.other} is shown ({one.difference.mean:+.3f})."
    how = "better" if one.difference.mean > 0 else "worse"
    return f"{at}, {pair.defense} is {how} than {pair.other} by {abs(one.difference.mean):.3f}, a {one.size} effect."


def _best_until(course: Sequence[tuple[float, TrialRecord | None]], cost: float) -> TrialRecord | None:
    return next((best for spent, best in reversed(course) if spent <= cost), None)
