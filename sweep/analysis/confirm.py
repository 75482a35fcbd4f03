"""Confirming: the best few are trained again with fresh seeds and judged on the test split, which nothing has touched.

The best of many trials is partly the luckiest: chosen by the validation images and by its seed. So the search's own
value is never the claim. A confirmation is a study of its own, `<study>-confirmation`, whose trials are the candidates
under fresh seeds: it is journaled, resumed and mirrored like any other. That the test split was opened, for whom and
under which attacks, is written into the searched study's journal first; another selection is refused after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from sweep.analysis.statistics import Comparison, Interval, Verdicts, analyse
from sweep.attacks import NamedAttack
from sweep.checkpoint import load_weights
from sweep.configuration import Several, TrialConfig
from sweep.errors import StudyError
from sweep.exported import restored
from sweep.orchestration.folder import StudyFolder
from sweep.provisions import Confirmation
from sweep.racing import Contender, race
from sweep.registry import Record, validated
from sweep.resources import choose_device
from sweep.seeding import derive
from sweep.study import DECIDED_BY_STUDY, Study, study_from
from sweep.tracking.journal import Journal
from sweep.tracking.ledger import Ledger, TrialRecord
from sweep.trial import VERDICTS

SUFFIX = "-confirmation"
SURE = 0.05  # a corrected p-value below this is called a difference
_UNASKED: dict[str, Any] = {"suspect": []}


@dataclass(frozen=True)
class Confirmed:
    """One candidate, over the seeds that completed. Accuracies are fractions in [0, 1]."""

    number: int  # of the trial that it was in the search
    defense: str
    role: str  # why it stands where it does, in words
    is_baseline: bool
    searched: float  # the objective, as the search saw it
    validation: float  # the same under fresh seeds: what is missing was the seed's luck
    test: dict[str, float]  # means over seeds, by metric
    worst_case: Interval  # on the test split, under every attack
    ends: tuple[str, ...]  # of its trainings, also of those that have not begun
    suspect: tuple[str, ...]  # the validity checks that any of its networks failed
    comparison: Comparison | None  # the first candidate less this one; None for the first itself

    @property
    def shrinkage(self) -> float:
        """How much of the search's value is left out by fresh seeds, unseen images and stronger attacks."""
        return self.searched - self.worst_case.mean


def select(
    folder: StudyFolder, *, top: int, seeds: int, attacks: Sequence[Any], baselines: bool, raced: int = 0
) -> Confirmation:
    """The best `top` trials; as baselines, of each other defense, the first completed trial that the study enqueued.

    With `raced`, the best are not those of the search's attack: the best so many by that one race under the attacks
    given here, on the validation split.
    """
    study, ledger = folder.study(), folder.ledger()
    if study.confirms:
        raise StudyError(
            f"{study.name} is a confirmation already; `sweep confirm {study.confirms.study}` goes on with it, and with "
            "--again opens the test split for another selection"
        )
    goal = study.objective[0]
    winners = [trial for trial in ledger.ranked(goal) if trial.rank(goal)[0] == 1]
    if not winners:
        raise StudyError(f"{study.name} has nothing to confirm: {_why_nothing(ledger)}")
    if 0 < raced < top:
        raise StudyError(f"--race {raced} leaves {raced} to choose from, and --top {top} are wanted: race more")
    winners = _raced(folder, winners[:raced], attacks, top) if raced else winners[:top]
    known = {trial.defense for trial in winners}
    others: list[TrialRecord] = []
    for trial in ledger if baselines else ():
        if trial.origin == "enqueued" and trial.defense not in known and trial.end == "completed" and trial.best:
            known.add(trial.defense)
            others.append(trial)
    chosen = [*winners, *others]
    selection = {
        "study": study.name,
        "fingerprint": study.fingerprint,
        "trials": [trial.number for trial in chosen],
        "values": [trial.best["metrics"][goal.metric] for trial in chosen if trial.best],
        "baselines": len(others),
        "seeds": seeds,
        "raced": raced,
        "attacks": [study.search_attack, *attacks],
    }
    return validated(Confirmation, selection, "the confirmation")


def begin(folder: StudyFolder, confirmation: Confirmation, *, again: bool) -> StudyFolder:
    """The confirming study's folder: that of this very selection, or a new one, for which the test split is opened."""
    root, wanted = folder.path.parent, confirmation.model_dump(mode="json")
    with folder.owned():
        study, ledger = folder.study(), folder.ledger()
        known = [opening["name"] for opening in ledger.confirmations if opening["confirmation"] == wanted]
        if ledger.confirmations and not known and not again:
            raise StudyError(_opened_already(ledger.confirmations[-1]))
        count = len(ledger.confirmations) + 1
        name = known[0] if known else f"{study.name}{SUFFIX}" + (f"-{count}" if count > 1 else "")
        confirming = _confirming(study, ledger, confirmation, name)  # every mistake in it is told before the opening
        if (root / name / "study.json").exists():
            return _taken_up(StudyFolder(root / name), confirming)
        if not known:
            journal = Journal(folder.journal)
            journal.append("confirmation", name=name, confirmation=wanted, opening=count)
            journal.close()
        return StudyFolder.create(root, confirming)


def _taken_up(there: StudyFolder, confirming: Study) -> StudyFolder:
    """The folder, if it holds this confirmation and not whatever else somebody gave its name."""
    if there.study().confirms != confirming.confirms:
        raise StudyError(f"{there.path} holds another study, where this confirmation belongs: move that one away")
    return there


def outcome(folder: StudyFolder) -> list[Confirmed]:
    """What a confirming study found so far, in the order of the search; candidates without a training are left out."""
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
    return [
        candidate.summed_up(study.objective[0].metric, spread, comparison)
        for candidate, spread, comparison in zip(found, intervals, [None, *comparisons], strict=True)
    ]


def verdict(found: Sequence[Confirmed]) -> list[str]:
    """What may be said, in words."""
    if not found:
        return ["no training completed: nothing can be said"]
    best, others = found[0], [one for one in found[1:] if one.comparison]
    sentences = [
        f"trial {best.number} ({best.defense}), {best.role}: {spread(best.worst_case)} under every attack; "
        f"the search had said {best.searched:.3f}"
    ]
    lists: dict[str, list[str]] = {"better than": [], "worse than": [], "no difference shown from": []}
    for one in others:
        assert one.comparison is not None
        if best.suspect or one.suspect:
            continue  # a figure that cannot be believed is neither better nor worse
        gap = one.comparison.difference.mean
        how = (
            "no difference shown from" if one.comparison.p_holm >= SURE else "better than" if gap > 0 else "worse than"
        )
        lists[how].append(f"trial {one.number} ({one.defense}, {-gap:+.3f})")
    sentences += [f"{how} {', '.join(names)}" for how, names in lists.items() if names]
    for one in found:
        if one.suspect:
            sentences.append(
                f"trial {one.number} cannot be believed: it failed {', '.join(one.suspect)} (docs/validity.md)"
            )
        missing = [end for end in one.ends if end != "completed"]
        if missing:
            sentences.append(
                f"trial {one.number}: {len(missing)} of {len(one.ends)} trainings {', '.join(sorted({*missing}))}"
            )
    return sentences


def spread(interval: Interval) -> str:
    """A mean and its interval as text."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _raced(folder: StudyFolder, trials: Sequence[TrialRecord], attacks: Sequence[Any], top: int) -> list[TrialRecord]:
    """The best `top` of these under the attacks, on the validation split, by an exact race of their networks."""
    named = validated(_Attacks, {"attacks": attacks}, "the race").attacks
    contenders = []
    for trial in trials:
        config = validated(TrialConfig, trial.config, f"trial {trial.number}")
        weights = "best" if config.select == "best" else "last"
        splits, device = config.dataset.load(), choose_device(config.device)
        network = restored(config, splits, folder.trial(trial.number) / f"{weights}.safetensors").to(device)
        validation = splits.validation.to(device)
        contenders.append(Contender(network, validation, named, config.threat_model, config.seed))
    return [trials[place] for place in race(contenders, top)]


class _Attacks(Record):
    attacks: Annotated[tuple[NamedAttack, ...], Several] = Field(min_length=1)


class _Candidate:
    """The trainings of one candidate."""

    def __init__(self, folder: StudyFolder, confirmation: Confirmation, ledger: Ledger, place: int) -> None:
        self.folder, self.confirmation, self.place = folder, confirmation, place
        self.trainings = [trial for trial in ledger if trial.number % len(confirmation.trials) == place]
        self.completed = [trial for trial in self.trainings if trial.end == "completed"]

    def verdicts(self) -> Verdicts:
        """Who withstood every attack, [seeds, examples]."""
        files = [self.folder.trial(trial.number) / VERDICTS for trial in self.completed]
        return np.stack([load_weights(file)["worst_case"].numpy() for file in files])

    def summed_up(self, metric: str, worst_case: Interval, comparison: Comparison | None) -> Confirmed:
        confirmation, place = self.confirmation, self.place
        validation = [trial.best["metrics"][metric] for trial in self.completed if trial.best]
        waiting = confirmation.seeds - len(self.trainings)
        return Confirmed(
            number=confirmation.trials[place],
            role=_role(confirmation, place),
            defense=self.completed[0].defense,
            is_baseline=place >= len(confirmation.trials) - confirmation.baselines,
            searched=confirmation.values[place],
            validation=float(np.mean(validation)),
            test=_means([trial.final for trial in self.completed], "test/"),
            worst_case=worst_case,
            ends=(*(trial.end or "running" for trial in self.trainings), *("not begun",) * waiting),
            suspect=tuple(sorted({name for one in self.completed for name in (one.validity or _UNASKED)["suspect"]})),
            comparison=comparison,
        )


def _confirming(study: Study, ledger: Ledger, confirmation: Confirmation, name: str) -> Study:
    """The study whose trial n trains candidate n modulo their number: each seed of all of them, then the next seed."""
    points = [_point(ledger.trials[number].config) for number in confirmation.trials]
    changes = {
        "name": name,
        "description": f"confirms {study.name} on the test split",
        "confirms": confirmation.model_dump(mode="json"),
        "enqueue": points * confirmation.seeds,
        "budget": {"trials": confirmation.trainings},
        "early_stopping": None,
        "compare": None,
        "limits": {"trial_hours": None, "epoch_hours": None},  # a search's; the test split may be attacked for days
        "sampler": "random",
        "validity": "full",
        "seed": derive(study.seed, name) % 2**31,
    }
    return study_from(study.to_json() | changes, name)


def _role(confirmation: Confirmation, place: int) -> str:
    """Why a candidate is one: the first of those that have a training need not be the search's best."""
    if place >= len(confirmation.trials) - confirmation.baselines:
        return "a baseline"
    ranked = "the race's" if confirmation.raced else "the search's"
    return f"{ranked} best" if place == 0 else f"{ranked} number {place + 1}"


def _point(config: dict[str, Any]) -> dict[str, Any]:
    """A whole configuration without what the study decides for all."""
    decided = ("dataset", "threat_model", *DECIDED_BY_STUDY)
    return {key: value for key, value in config.items() if key not in decided}


def _means(figures: Sequence[dict[str, float]], prefix: str) -> dict[str, float]:
    names = [name for name in figures[0] if name.startswith(prefix)]
    return {name: float(np.mean([each[name] for each in figures])) for name in names}


def _why_nothing(ledger: Ledger) -> str:
    if ledger.suspects and all(trial.is_suspect for trial in ledger if trial.end == "completed"):
        return "every completed trial is suspect, and `sweep status` says why"
    return "no completed trial keeps the objective's bounds"


def _opened_already(opening: dict[str, Any]) -> str:
    known = opening["confirmation"]
    trials = ", ".join(map(str, known["trials"]))
    return (
        f"the test split was opened already, for trials {trials} with {known['seeds']} seeds ({opening['name']}): "
        "choosing anew after seeing it would be choosing by it. The same options go on with that one; --again opens it "
        "for another selection, and the journal will say so"
    )
