"""Opening the test split: for whom, and under which attacks.

A confirmation is a study of its own, `<study>-confirmation`, whose trials are the candidates under fresh seeds: it is
journaled, resumed and mirrored like any other. That the test split was opened, for whom and under which attacks, is
written into the searched study's journal first; another selection is refused after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from sweep.attacks import Attack, NamedAttack
from sweep.configuration import Several, TrialConfig
from sweep.errors import StudyError, counted
from sweep.exported import restored
from sweep.orchestration.budget import Spending
from sweep.orchestration.evidence import proven
from sweep.orchestration.folder import StudyFolder
from sweep.provisions import Confirmation
from sweep.racing import Contender, race
from sweep.registry import Record, validated
from sweep.resources import choose_device
from sweep.seeding import derive
from sweep.soundness import DECIDED_BY_STUDY
from sweep.study import Study, study_from
from sweep.tracking.journal import Journal
from sweep.tracking.ledger import Ledger, TrialRecord
from sweep.trial import WEIGHTS

SUFFIX = "-confirmation"


def select(
    folder: StudyFolder,
    *,
    top: int,
    seeds: int,
    attacks: Sequence[Any],
    baselines: bool,
    raced: int = 0,
    again: bool = False,
) -> Confirmation:
    """The best `top` trials; as baselines, of each other defense, the first completed trial that the study enqueued.

    With `raced`, the best are not those of the search's attack: the best so many by that one race under the attacks
    given here, on the validation split. What came out of a race is in the journal, and no race is run twice; none is
    run at all for a selection that `begin` would refuse unless it is told `again`.
    """
    study = folder.study()
    ledger = reconsidered(folder) if again else folder.ledger()  # what goes on is the selection that was made
    if study.confirms:
        raise StudyError(
            f"{study.name} is a confirmation already; `sweep confirm {study.confirms.study}` goes on with it, and with "
            "--again opens the test split for another selection"
        )
    goal = study.objective[0]
    winners = _winners(study, ledger)
    if not winners:
        raise StudyError(f"{study.name} has nothing to confirm: {_why_nothing(ledger)}")
    if 0 < raced < top:
        raise StudyError(f"--race {raced} leaves {raced} to choose from, and --top {top} are wanted: race more")
    raced = min(raced, len(winners))
    winners = _best_raced(folder, ledger, winners[:raced], attacks, top, again) if raced else winners[:top]
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
        there = root / name
        taken_up = _taken_up(StudyFolder(there), confirming) if (there / "study.json").exists() else None
        if not known:  # also where the folder is there and the study's journal, an older copy, knows nothing of it
            journal = Journal(folder.journal)
            over = _is_over(study, ledger)
            journal.append("confirmation", name=name, confirmation=wanted, opening=count, search_over=over)
            journal.close()
        storage = folder.storage.parent if folder.storage else None
        return taken_up or StudyFolder.create(root, confirming, storage=storage)


def history(ledger: Ledger) -> list[str]:
    """How often a study's test split was opened, and what of the search it could not know, in sentences."""
    openings = ledger.confirmations
    if not openings:
        return []
    last, names = openings[-1], ", ".join(opening["name"] for opening in openings)
    if len(openings) == 1:
        sentences = [f"the test split was opened once ({names})"]
    else:
        sentences = [
            f"the test split was opened {len(openings)} times ({names}): all but the first selection were made by "
            "someone who could have seen it, so their figures may be too good"
        ]
    if not last.get("search_over", True):
        sentences.append(f"it was opened before the search was over, when {counted(last['ended'], 'trial')} had ended")
    if later := ledger.ended - last["ended"]:
        sentences.append(f"trials that ended after it was opened, and were no candidates: {later}")
    return sentences


def unfinished(study: Study, ledger: Ledger) -> str | None:
    """A warning where the search may still find something better; None where it is over."""
    if _is_over(study, ledger):
        return None
    return (
        f"the search is not over ({ledger.ended} of {counted(study.budget.trials, 'trial')} ended): what it finds from "
        "now on is no candidate here, and to choose among that --again "
        "must open the test split once more, which is recorded"
    )


def _is_over(study: Study, ledger: Ledger) -> bool:
    return Spending(study, ledger).is_over and not ledger.in_flight


def disbelieved(folder: StudyFolder, ledger: Ledger) -> dict[int, list[str]]:
    """The validity checks that a trial's configuration failed when it was confirmed, by the trial's number."""
    found: dict[int, list[str]] = {}
    for opening in ledger.confirmations:
        trials = opening["confirmation"]["trials"]
        for training in StudyFolder(folder.path.parent / opening["name"]).ledger().suspects:
            failed = found.setdefault(trials[training.number % len(trials)], [])
            failed += [id for id in (training.validity or {})["suspect"] if id not in failed]
    return found


def reconsidered(folder: StudyFolder) -> Ledger:
    """A study's ledger in which a trial is suspect also where its configuration was when it was confirmed."""
    ledger = folder.ledger()
    for number, failed in disbelieved(folder, ledger).items():
        ledger.trials[number].refuted = failed
    return ledger


def newest(folder: StudyFolder, ledger: Ledger, number: int | None = None) -> StudyFolder | None:
    """The newest confirmation of a searched study that holds a completed training: of trial `number`, where given."""
    for opening in reversed(ledger.confirmations):
        trials, there = opening["confirmation"]["trials"], StudyFolder(folder.path.parent / opening["name"])
        trainings = there.ledger() if there.journal.exists() else ()
        completed = {trials[each.number % len(trials)] for each in trainings if each.end == "completed"}
        if completed if number is None else number in completed:
            return there
    return None


def gone(folder: StudyFolder, ledger: Ledger, number: int) -> str | None:
    """The name of a confirmation that had trial `number` among its candidates, and is not there (any more)."""
    names = [str(opening["name"]) for opening in ledger.confirmations if number in opening["confirmation"]["trials"]]
    return next((name for name in names if not StudyFolder(folder.path.parent / name).journal.exists()), None)


def _taken_up(there: StudyFolder, confirming: Study) -> StudyFolder:
    """The folder, if it holds this confirmation and not whatever else somebody gave its name."""
    if there.study().confirms != confirming.confirms:
        raise StudyError(f"{there.path} holds another study, where this confirmation belongs: move that one away")
    return there


def _best_raced(
    folder: StudyFolder, ledger: Ledger, trials: Sequence[TrialRecord], attacks: Sequence[Any], top: int, again: bool
) -> list[TrialRecord]:
    """The best `top` of these under the attacks, on the validation split: as the journal has it, or by a race now."""
    named = validated(_Attacks, {"attacks": attacks}, "the race")
    asked = {"racers": [trial.number for trial in trials], **named.model_dump(mode="json")}
    for known in ledger.races:
        if asked.items() <= known.items() and len(known["winners"]) >= top:  # best first, so a part of them is theirs
            return [ledger.trials[number] for number in known["winners"][:top]]
    if ledger.confirmations and not again:
        raise StudyError(_opened_already(ledger.confirmations[-1]))
    with folder.owned():  # before it begins: it may take hours
        contenders = [_contender(folder, trial, named.attacks) for trial in trials]
        winners = [trials[place] for place in race(contenders, top)]
        journal = Journal(folder.journal)
        bounds = [contender.bound for contender in contenders]
        journal.append("raced", **asked, winners=[trial.number for trial in winners], bounds=bounds)
        journal.close()
    return winners


def _contender(folder: StudyFolder, trial: TrialRecord, attacks: Sequence[Attack]) -> Contender:
    config = validated(TrialConfig, trial.config, f"trial {trial.number}")
    splits, device = config.dataset.load(), choose_device(config.device)
    network = restored(config, splits, proven(folder, trial, WEIGHTS[config.select])).to(device)
    return Contender(network, splits.validation.to(device), attacks, config.threat_model, config.seed)


class _Attacks(Record):
    attacks: Annotated[tuple[NamedAttack, ...], Several] = Field(min_length=1)


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


def _point(config: dict[str, Any]) -> dict[str, Any]:
    """A whole configuration without what the study decides for all."""
    decided = ("dataset", "threat_model", *DECIDED_BY_STUDY)
    return {key: value for key, value in config.items() if key not in decided}


def _winners(study: Study, ledger: Ledger) -> list[TrialRecord]:
    """The completed trials that keep the bounds, best first; where defenses are compared, each one's best before any
    second best."""
    goal = study.objective[0]
    winners = [trial for trial in ledger.ranked(goal) if trial.rank(goal)[0] == 1]
    firsts = {trial.defense: trial.number for trial in reversed(winners)}
    return sorted(winners, key=lambda trial: study.compare is not None and trial.number != firsts[trial.defense])


def _why_nothing(ledger: Ledger) -> str:
    if ledger.suspects and all(trial.is_suspect for trial in ledger if trial.end == "completed"):
        return "every completed trial is suspect, and `sweep status` says why"
    return "no completed trial keeps the objective's bounds"


def _opened_already(opening: dict[str, Any]) -> str:
    known = opening["confirmation"]
    trials = ", ".join(map(str, known["trials"]))
    return (
        f"the test split was opened already, for trials {trials} with {counted(known['seeds'], 'seed')} "
        f"({opening['name']}): choosing anew after seeing it would be choosing by it. "
        f"`sweep resume {opening['name']}` goes on with that "
        "one; --again opens it for another selection, and the journal will say so"
    )
