"""Two studies held against one another: refused unless both judge alike, then as far as something can be said.

Where both have confirmed their best under the same attacks, these are compared on the test images, over their seeds.
Elsewhere the searches' own best are, on the validation images that chose them: worth a confirmation, and none itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from sweep.analysis import confirm, kept, probes
from sweep.analysis.opening import newest
from sweep.analysis.results import best_by_defense
from sweep.analysis.standing import Standing
from sweep.analysis.statistics import SURE, Interval, Verdicts, analyse
from sweep.errors import StudyError, counted
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.warm_start import differing
from sweep.preview import describe_cost
from sweep.provisions import Confirmation
from sweep.registry import short
from sweep.seeding import derive
from sweep.tracking.ledger import TrialRecord


@dataclass(frozen=True)
class Side:
    """What one study has of a defense."""

    trial: int | None  # its best completed trial within the bounds; None where there is none
    value: float | None  # the objective's, on the validation split
    trials: int
    gradient_evaluations: float  # of all of them


@dataclass(frozen=True)
class Paired:
    """The two studies' best, on the same images."""

    trials: tuple[int, int]
    defenses: tuple[str, str]
    split: str  # "test" where both are confirmed under the same attacks, else "validation"
    attack: str
    images: int
    seeds: tuple[int, int]
    difference: Interval  # the first's accuracy less the second's
    p: float


def refuse_incomparable(first: Standing, second: Standing) -> None:
    """Raise StudyError where the one's figures mean nothing beside the other's."""
    for one in (first, second):
        if one.study.confirms:
            searched = one.study.confirms.study
            raise StudyError(f"{one.study.name} confirms {searched}: compare {searched}, which counts its confirmation")
    if first.folder.path.resolve() == second.folder.path.resolve():
        raise StudyError(f"{first.folder.path} is the only study given: name two different ones")
    if parts := [_differing(part, first, second) for part in differing(first.study, second.study)]:
        called = names(first, second)
        raise StudyError(
            f"{called[0]} and {called[1]} cannot be compared: they differ in {'; '.join(parts)}. The one's figures "
            "mean nothing beside the other's"
        )


def names(first: Standing, second: Standing) -> tuple[str, str]:
    """What to call them: by their folders' names, with as much of the way to them as tells them apart."""
    one, other = (study.folder.path.resolve().parts[::-1] for study in (first, second))
    equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    return str(Path(*one[equal::-1])), str(Path(*other[equal::-1]))


def by_defense(first: Standing, second: Standing) -> dict[str, tuple[Side, Side]]:
    """Every defense that either study tried, the best first."""
    goal = first.study.objective[0]
    ranked = [trial for one in (first, second) for trial in best_by_defense(one.ledger, goal)]
    order = [trial.defense for trial in sorted(ranked, key=lambda trial: trial.rank(goal), reverse=True)]
    order += sorted(trial.defense for one in (first, second) for trial in one.ledger)
    return {name: (_side(first, name), _side(second, name)) for name in dict.fromkeys(order)}


def paired(first: Standing, second: Standing, say: Callable[[str], None]) -> Paired | None:
    """Both best on the same images; None where one has none that counts, or no network of it is kept."""
    if first.best is None or second.best is None:
        return None
    return _on_test(first, second) or _on_validation(first, first.best, second, second.best, say)


def words(first: Standing, second: Standing, found: Paired | None) -> Iterator[str]:
    """What may be said."""
    called, spent = names(first, second), [_spent(one) for one in (first, second)]
    if found is None:
        lacking = [name for name, one in zip(called, (first, second), strict=True) if one.best is None]
        why = f"no completed trial of {' and '.join(lacking)} counts" if lacking else "their networks are not kept"
        yield f"nothing can be said of the two on the same images: {why}"
    else:
        best = [f"{name}'s trial {n} ({d})" for name, n, d in zip(called, found.trials, found.defenses, strict=True)]
        gap, low, high = found.difference.mean, found.difference.low, found.difference.high
        on = f"on the same {counted(found.images, f'{found.split} image')} under {found.attack}"
        if found.p >= SURE:
            yield f"{on}, no difference between {best[0]} and {best[1]} is shown: {gap:+.3f} [{low:+.3f}, {high:+.3f}]"
        else:
            winner, other = best if gap > 0 else best[::-1]
            how = f"{abs(gap):.3f} ({gap:+.3f} [{low:+.3f}, {high:+.3f}], p {found.p:.4f})"
            yield f"{on}, {winner} is better than {other} by {how}"
        if found.split == "validation":
            yield "these images chose both trials, one seed each: `sweep confirm` of both says what may be claimed"
    yield f"{called[0]} had {spent[0]}, {called[1]} {spent[1]}: who is tuned with more finds more"


def _differing(part: str, first: Standing, second: Standing) -> str:
    values = [one.study.to_json().get(part) or one.study.space.tree.get(part) for one in (first, second)]
    told = " and ".join(map(short, values))
    return part if "..." in told else f"{part} ({told})"


def _side(one: Standing, defense: str) -> Side:
    goal = one.study.objective[0]
    trials = [trial for trial in one.ledger if trial.defense == defense]
    best = next((t for t in one.ledger.ranked(goal) if t.defense == defense and t.rank(goal)[0] == 1), None)
    value = best.best["metrics"][goal.metric] if best and best.best else None
    cost = sum(trial.gradient_evaluations for trial in trials)
    return Side(best.number if best else None, value, len(trials), cost)


def _spent(one: Standing) -> str:
    cost = describe_cost(one.ledger.gradient_evaluations)
    return f"{counted(len(one.ledger.trials), 'trial')} and {cost} gradient evaluations"


def _on_test(first: Standing, second: Standing) -> Paired | None:
    """The confirmed best of both, where both were attacked alike."""
    ours, theirs = _confirmed(first), _confirmed(second)
    if ours is None or theirs is None:
        return None
    (best, folder, asked), (other, other_folder, other_asked) = ours, theirs
    if asked.attacks != other_asked.attacks:
        return None
    rows = [confirm.verdicts(folder, best.number), confirm.verdicts(other_folder, other.number)]
    if rows[0].shape[1] != rows[1].shape[1]:
        return None
    attack = " and ".join(attack.label for attack in asked.attacks)
    return _summed_up(first, [best, other], "test", attack, rows)


def _confirmed(one: Standing) -> tuple[TrialRecord, StudyFolder, Confirmation] | None:
    """The study's best, and the newest confirmation that trained it, where that is confirmed."""
    if not one.is_confirmed or one.best is None:
        return None
    folder = newest(one.folder, one.ledger, one.best.number)
    asked = folder.study().confirms if folder else None
    return (one.best, folder, asked) if folder and asked else None


def _on_validation(
    first: Standing, best: TrialRecord, second: Standing, other: TrialRecord, say: Callable[[str], None]
) -> Paired | None:
    rows = []
    for one, trial in ((first, best), (second, other)):
        (network,) = kept.of_search(one.folder, [trial])
        found, missing = probes.probe(one.folder.path, [network], measure=True, say=say)
        for sentence in missing:
            say(sentence)
        rows += [found[network.folder].at_judged.numpy()[None]] if network.folder in found else []
    if len(rows) < 2 or rows[0].shape != rows[1].shape:
        return None
    return _summed_up(first, [best, other], "validation", first.study.search_attack.label, rows)


def _summed_up(first: Standing, best: list[TrialRecord], split: str, attack: str, rows: list[Verdicts]) -> Paired:
    _, (comparison,) = analyse(rows, np.random.default_rng(derive(first.study.seed, "contrast")))
    fields: dict[str, Any] = {
        "trials": (best[0].number, best[1].number),
        "defenses": (best[0].defense, best[1].defense),
        "seeds": (len(rows[0]), len(rows[1])),
    }
    return Paired(
        split=split,
        attack=attack,
        images=rows[0].shape[1],
        difference=comparison.difference,
        p=comparison.p,
        **fields,
    )
