"""What a confirmation says: the best few, trained again with fresh seeds, on the test split that nothing has touched.

The best of many trials is partly the luckiest: chosen by the validation images and by its seed. So the search's own
value is never the claim. (Who is confirmed, and that it is recorded: `sweep.analysis.opening`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.analysis.findings import titles
from sweep.analysis.statistics import SURE, Comparison, Interval, Verdicts, analyse
from sweep.checkpoint import load_weights
from sweep.errors import StudyError, counted
from sweep.objective import Goal
from sweep.orchestration.evidence import proven
from sweep.orchestration.folder import StudyFolder
from sweep.provisions import Confirmation
from sweep.seeding import derive
from sweep.study import Study
from sweep.tracking.ledger import Ledger
from sweep.trial import VERDICTS

_FEW = 100  # images, as in V28
_SHOWN = 0.0005  # what three digits show of a figure
_UNASKED: dict[str, Any] = {"suspect": [], "investigate": []}


@dataclass(frozen=True)
class Confirmed:
    """One candidate, over the seeds that completed. Accuracies are fractions in [0, 1]."""

    number: int  # of the trial that it was in the search
    defense: str
    role: str  # why it stands where it does, in words
    is_baseline: bool
    searched: float  # the objective, as the search saw it
    fresh: tuple[float, ...]  # the same by fresh seed
    luck: float  # by how much these are worse on average: same images, same attack, so it was chance
    outside: tuple[str, ...]  # the objective's bounds that it does not keep with fresh seeds, in words
    test: dict[str, float]  # mean accuracies over the same seeds as the worst case's, by metric
    clean: Interval  # on the test split, unattacked; a diverged training is right about nothing
    worst_case: Interval  # the same under every attack
    images: int  # of the test split
    ends: tuple[str, ...]  # of its trainings, also of those that have not begun
    suspect: tuple[str, ...]  # the validity checks that any of its networks failed
    investigate: tuple[str, ...]  # those that any gave reason to look into
    comparison: Comparison | None  # the first candidate less this one; None for the first itself

    @property
    def validation(self) -> float:
        """The objective under fresh seeds, their mean."""
        return float(np.mean(self.fresh))

    @property
    def shrinkage(self) -> float:
        """How much of the search's value is left out by fresh seeds, unseen images and stronger attacks."""
        return self.searched - self.worst_case.mean

    @property
    def lacking(self) -> list[str]:
        """Why it cannot be called confirmed, in words: nothing where it can."""
        return _lacking(self.ends, self.suspect, self.outside)


def outcome(folder: StudyFolder) -> list[Confirmed]:
    """What a confirming study found so far, the best before the baselines; candidates of whose trainings none completed
    are left out."""
    study, ledger = folder.study(), folder.ledger()
    if study.confirms is None:
        raise StudyError(f"{folder.path} confirms nothing; `sweep confirm {study.name}` makes a study that does")
    candidates = [_Candidate(folder, study.confirms, ledger, place) for place in range(len(study.confirms.trials))]
    found = [candidate for candidate in candidates if candidate.completed]
    if not found:
        return []
    rng = np.random.default_rng(derive(study.seed, "bootstrap"))
    verdicts = [candidate.verdicts() for candidate in found]
    intervals, comparisons = analyse(verdicts, rng)
    cleans, _ = analyse([candidate.verdicts("clean") for candidate in found], rng)
    images, goal = verdicts[0].shape[1], study.objective[0]
    summed_up = [
        candidate.summed_up(goal, clean, worst_case, images, comparison)
        for candidate, clean, worst_case, comparison in zip(found, cleans, intervals, [None, *comparisons], strict=True)
    ]
    return in_order(summed_up, goal)


def in_order(found: Sequence[Confirmed], goal: Goal) -> list[Confirmed]:
    """What the others are compared with, the rest of the best as they were chosen, and the baselines by the search's
    values."""
    worse = -1 if goal.direction == "maximize" else 1
    first, *others = found
    return [first, *sorted(others, key=lambda one: (one.is_baseline, one.is_baseline and worse * one.searched))]


def verdicts(folder: StudyFolder, number: int) -> Verdicts:
    """Who withstood every attack, [seeds, examples], of a candidate by its number in the search."""
    confirms = folder.study().confirms
    assert confirms is not None
    return _Candidate(folder, confirms, folder.ledger(), confirms.trials.index(number)).verdicts()


def is_confirmed(folder: StudyFolder, number: int) -> bool:
    """Whether a confirming study confirms the candidate of this number in the search: every fresh seed of it completed,
    is believed, and they keep the objective's bounds. (As `Confirmed.lacking` says, without its intervals.)"""
    study = folder.study()
    assert study.confirms is not None
    candidate = _Candidate(folder, study.confirms, folder.ledger(), study.confirms.trials.index(number))
    if not candidate.completed:
        return False
    return not _lacking(candidate.ends, candidate.outcomes("suspect"), _outside(study.objective[0], candidate.figures))


def verdict(study: Study, found: Sequence[Confirmed]) -> list[str]:
    """What may be said, in words, of what the confirming `study` found."""
    if not found:
        return ["no training completed: nothing can be said"]
    sentences = [_claim(found[0]), *_compared(found)]
    for one in found:
        sentences += _reserved(one)
    return [*sentences, *_weakness(study)]


def _claim(best: Confirmed) -> str:
    seeds = best.ends.count("completed") + best.ends.count("diverged")
    over = f"over {counted(seeds, 'seed')} and {counted(best.images, 'image')}"
    reached = f"{min(best.fresh):.3f} to {max(best.fresh):.3f}" if len(best.fresh) > 1 else f"{best.validation:.3f}"
    lucky = f": {best.luck:.3f} of the search's value was luck" if best.luck >= _SHOWN else ""
    return (
        f"trial {best.number} ({best.defense}), {best.role}: {spread(best.worst_case)} under every attack, {over}; the "
        f"search had said {best.searched:.3f}, and on the same images fresh seeds reach {reached}{lucky}"
    )


def _compared(found: Sequence[Confirmed]) -> list[str]:
    """The first candidate beside each of the others that can be believed, as it can be itself."""
    best, *others = found
    lists: dict[str, list[str]] = {"better than": [], "worse than": [], "no difference shown from": []}
    for one in others:
        if best.suspect or one.suspect or one.comparison is None:
            continue  # a figure that cannot be believed is neither better nor worse
        gap = one.comparison.difference.mean
        how = (
            "no difference shown from" if one.comparison.p_holm >= SURE else "better than" if gap > 0 else "worse than"
        )
        lists[how].append(f"trial {one.number} ({one.defense}, {-gap:+.3f})")
    return [f"{how} {', '.join(names)}" for how, names in lists.items() if names]


def _reserved(one: Confirmed) -> list[str]:
    """What is to be known of a candidate's figures before they are used."""
    name, sentences = f"trial {one.number}", []
    if one.suspect:
        sentences.append(f"{name} cannot be believed: it failed {titles(one.suspect)} (docs/validity.md)")
    if doubts := [id for id in one.investigate if id not in one.suspect]:
        sentences.append(f"{name} is to be looked into: {titles(doubts)} (docs/validity.md)")
    if one.outside and not one.is_baseline:
        sentences.append(f"{name} is outside of the objective's bounds with fresh seeds: {', '.join(one.outside)}")
    diverged = one.ends.count("diverged")
    if diverged:
        sentences.append(
            f"{name}: {diverged} of {counted(len(one.ends), 'training')} diverged, and count as right about nothing"
        )
    missing = [end for end in one.ends if end not in ("completed", "diverged")]
    if missing:
        sentences.append(
            f"{name}: {len(missing)} of {counted(len(one.ends), 'training')} {', '.join(sorted({*missing}))}"
        )
    if one.images < _FEW:
        sentences.append(
            f"{name} was judged on {counted(one.images, 'test image')}: chance decides much of its figures"
        )
    if one.worst_case.low == one.worst_case.high:
        rest = f"up to {3 / one.images:.3f} of other images may still differ"  # the rule of three, 95 %
        sentences.append(f"{name} came out alike on every image, and no resampling shows the chance in that: {rest}")
    if len(one.ends) - len(missing) == 1:
        sentences.append(f"{name} has one seed: its interval says nothing of another training")
    return sentences


def _weakness(study: Study) -> list[str]:
    """A sentence where the attacks on the test split are no stronger than that of the search."""
    assert study.confirms is not None
    searched, *further = study.confirms.attacks
    if any(attack.gradient_evaluations > searched.gradient_evaluations for attack in further):
        return []
    return [f"no attack here takes more gradient steps than the search's, {searched.label}: auto_attack may break more"]


def spread(interval: Interval) -> str:
    """A mean and its interval as text."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


class _Candidate:
    """The trainings of one candidate."""

    def __init__(self, folder: StudyFolder, confirmation: Confirmation, ledger: Ledger, place: int) -> None:
        self.folder, self.confirmation, self.place = folder, confirmation, place
        self.ledger = ledger
        self.trainings = [trial for trial in ledger if trial.number % len(confirmation.trials) == place]
        self.completed = [trial for trial in self.trainings if trial.end == "completed"]

    @property
    def ends(self) -> tuple[str, ...]:
        waiting = self.confirmation.seeds - len(self.trainings)
        return (*map(self.ledger.state, self.trainings), *("not begun",) * waiting)

    @property
    def figures(self) -> list[dict[str, float]]:
        """Of each completed training, those of the epoch that counts."""
        return [trial.best["metrics"] for trial in self.completed if trial.best]

    def verdicts(self, under: str = "worst_case") -> Verdicts:
        """Who withstood every attack, or is right where it stands ("clean"), [seeds, examples]: of a diverged training,
        nobody."""
        files = [proven(self.folder, trial, VERDICTS) for trial in self.completed]
        held = np.stack([load_weights(file)[under].numpy() for file in files])
        diverged = sum(trial.end == "diverged" for trial in self.trainings)
        return np.concatenate([held, np.zeros((diverged, held.shape[1]), dtype=bool)])

    def summed_up(
        self, goal: Goal, clean: Interval, worst_case: Interval, images: int, comparison: Comparison | None
    ) -> Confirmed:
        confirmation, place = self.confirmation, self.place
        fresh, searched = tuple(figure[goal.metric] for figure in self.figures), confirmation.values[place]
        return Confirmed(
            number=confirmation.trials[place],
            role=_role(confirmation, place),
            defense=self.completed[0].defense,
            is_baseline=place >= len(confirmation.trials) - confirmation.baselines,
            searched=searched,
            fresh=fresh,
            luck=(searched - float(np.mean(fresh))) * (1 if goal.direction == "maximize" else -1),
            outside=_outside(goal, self.figures),
            test=_means([trial.final for trial in self.completed], self.ends.count("diverged")),
            clean=clean,
            worst_case=worst_case,
            images=images,
            ends=self.ends,
            suspect=self.outcomes("suspect"),
            investigate=self.outcomes("investigate"),
            comparison=comparison,
        )

    def outcomes(self, kind: str) -> tuple[str, ...]:
        found = {id for one in self.completed for id in (one.validity or _UNASKED)[kind]}
        return tuple(sorted(found, key=lambda id: (len(id), id)))  # V9 before V10


def _role(confirmation: Confirmation, place: int) -> str:
    """Why a candidate is one: the first of those that have a training need not be the search's best."""
    if place >= len(confirmation.trials) - confirmation.baselines:
        return "a baseline"
    ranked = "the race's" if confirmation.raced else "the search's"
    return f"{ranked} best" if place == 0 else f"{ranked} number {place + 1}"


def _lacking(ends: Sequence[str], suspect: Sequence[str], outside: Sequence[str]) -> list[str]:
    """What a candidate lacks to be confirmed, in words."""
    lacking = []
    if not {"running", "interrupted", "not begun"}.isdisjoint(ends):
        lacking.append(f"being confirmed: {ends.count('completed')} of {counted(len(ends), 'seed')}")
    elif others := [end for end in ends if end != "completed"]:
        lacking.append(f"{len(others)} of {counted(len(ends), 'training')} {', '.join(sorted({*others}))}")
    if suspect:
        lacking.append(f"suspect ({', '.join(suspect)})")
    if outside:
        lacking.append(f"outside of the objective's bounds with fresh seeds ({', '.join(outside)})")
    return lacking


def _outside(goal: Goal, figures: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """The bounds that the means of these figures do not keep, in words."""
    means = {name: float(np.mean([each[name] for each in figures])) for name in goal.subject_to if name in figures[0]}
    return tuple(
        f"{name} is {means[name]:.3f}, and {goal.subject_to[name]} is asked"
        for name, violation in goal.violations(means).items()
        if name in means and violation > 0
    )


def _means(figures: Sequence[Mapping[str, float]], diverged: int) -> dict[str, float]:
    """Accuracies on the test split, over completed and diverged trainings: these are right about nothing."""
    names = [name for name in figures[0] if name.startswith("test/") and name.endswith("accuracy")]
    return {name: float(np.mean([each[name] for each in figures] + [0.0] * diverged)) for name in names}
