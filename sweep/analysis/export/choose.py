"""Which trial to take away: unasked none that is suspect, or whose configuration was when it was confirmed."""

from __future__ import annotations

from sweep.analysis.confirm import outcome
from sweep.analysis.export import chosen
from sweep.analysis.export.chosen import Chosen, Confirmation, openings
from sweep.analysis.opening import disbelieved, gone
from sweep.analysis.results import pareto
from sweep.errors import StudyError
from sweep.objective import Goal, Maximize
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

_CLEAN = "validation/clean_accuracy"


def best(folder: StudyFolder, ledger: Ledger, *, include_suspect: bool = False) -> Chosen:
    """The best completed trial that keeps the objective's bounds, by its first goal."""
    study = _searched(folder)
    winner = _winners(folder, study, ledger, include_suspect)[0]
    _refuse_forgotten(folder, ledger, winner.number, include_suspect)
    return _chosen(folder, study, ledger, winner)


def front(folder: StudyFolder, ledger: Ledger, *, include_suspect: bool = False) -> list[Chosen]:
    """The trials within the objective's bounds that none beats in the objective and in clean accuracy at once, those
    of the best clean accuracy last."""
    study = _searched(folder)
    winners = _winners(folder, study, ledger, include_suspect)
    goals: list[Goal] = [*study.objective, Maximize(_CLEAN)]
    found = sorted(pareto(winners, goals, include_suspect=include_suspect), key=_clean)
    for trial in found:
        _refuse_forgotten(folder, ledger, trial.number, include_suspect)
    return [_chosen(folder, study, ledger, trial) for trial in found]


def numbered(folder: StudyFolder, ledger: Ledger, number: int, *, include_suspect: bool = False) -> Chosen:
    """Trial `number`, if it can be exported."""
    trial = completed(ledger, number, include_suspect=include_suspect)
    if failed := disbelieved(folder, ledger).get(number) if not include_suspect else None:
        found = f"trial {number} was suspect when confirmed ({', '.join(failed)})"
        raise StudyError(f"{found}; --include-suspect exports it anyway")
    _refuse_forgotten(folder, ledger, number, include_suspect)
    return _chosen(folder, folder.study(), ledger, trial)


def confirmed(folder: StudyFolder, ledger: Ledger, *, include_suspect: bool = False) -> Chosen:
    """Of the newest confirmation's first candidate, the first training: chosen before its figures were known."""
    study = _searched(folder)
    confirmation = chosen.confirmation(folder, ledger)
    if confirmation is None:
        raise StudyError(f"nothing of {study.name} is confirmed yet: `sweep confirm {study.name}` does so")
    winner = confirmation.found[0]
    if winner.is_baseline:
        raise StudyError(
            f"no candidate of {confirmation.folder.path} but baselines has a completed training: resume it"
        )
    if winner.suspect and not include_suspect:
        raise StudyError(
            f"the confirmed trial {winner.number} is suspect ({', '.join(winner.suspect)}): `sweep status "
            f"{confirmation.folder.path.name}` says why; --include-suspect exports it anyway"
        )
    if winner.outside:
        raise StudyError(
            f"the confirmed trial {winner.number} is outside of the objective's bounds with fresh seeds "
            f"({', '.join(winner.outside)}): `sweep export {confirmation.folder.path.name} --trial N` takes one of its "
            "trainings away all the same"
        )
    if set(winner.ends) != {"completed"}:
        name = confirmation.folder.path.name
        raise StudyError(
            f"trial {winner.number} is not confirmed: {', '.join(winner.lacking)}; `sweep resume {name}` goes on with "
            f"it, and `sweep export {name} --trial N` takes one of its trainings away all the same"
        )
    confirming = confirmation.folder.study()
    assert confirming.confirms is not None
    place = confirming.confirms.trials.index(winner.number)
    candidates = len(confirming.confirms.trials)
    trainings = (trial for trial in confirmation.folder.ledger() if trial.number % candidates == place)
    first = next(trial for trial in trainings if trial.end == "completed")
    return Chosen(confirmation.folder, confirming, first, confirmation)


def completed(ledger: Ledger, number: int, *, include_suspect: bool = False) -> TrialRecord:
    """Trial `number`, if it can be exported."""
    trial = ledger.trials.get(number)
    if trial is None:
        raise StudyError(f"there is no trial {number}; {_range(ledger)}")
    if trial.end == "completed" and trial.best is None:
        raise StudyError(f"trial {number} never reported the objective, so no epoch of it can be chosen")
    if trial.end != "completed":
        raise StudyError(f"trial {number} is {ledger.state(trial)}: only a completed trial can be exported")
    if trial.is_suspect and trial.validity and not include_suspect:
        failed = ", ".join(trial.validity["suspect"])
        raise StudyError(f"trial {number} is suspect ({failed}); --include-suspect exports it anyway")
    return trial


def _searched(folder: StudyFolder) -> Study:
    study = folder.study()
    if confirms := study.confirms:
        candidates = ", ".join(map(str, confirms.trials))
        raise StudyError(
            f"the best of a confirmation would be its luckiest seed: `sweep export {confirms.study} --confirmed` takes "
            f"what it confirmed, `sweep export {confirms.study} --trial N` a candidate (trial {candidates}), and "
            f"`sweep export {folder.path.name} --trial N` one of its trainings"
        )
    return study


def _chosen(folder: StudyFolder, study: Study, ledger: Ledger, trial: TrialRecord) -> Chosen:
    if study.confirms is None:
        return Chosen(folder, study, trial, chosen.confirmation(folder, ledger, trial.number))
    searched = StudyFolder(folder.path.parent / study.confirms.study)
    found = outcome(folder)
    if searched.journal.exists() and study.name in openings(ledger := searched.ledger()):
        return Chosen(folder, study, trial, Confirmation.of(searched, ledger, folder, found))
    return Chosen(folder, study, trial, Confirmation(folder, found, (study.name,), [], {}))  # moved away from it


def _refuse_forgotten(folder: StudyFolder, ledger: Ledger, number: int, include_suspect: bool) -> None:
    """Raise StudyError where a confirmation of the trial is gone, which may have disbelieved it."""
    if not include_suspect and (name := gone(folder, ledger, number)):
        raise StudyError(
            f"trial {number} was a candidate of {name}, which is not in {folder.path.parent}: whether it was believed "
            f"is not known. Bring that back, or `sweep confirm {folder.path.name}`, asked as then, trains its "
            "candidates again; --include-suspect exports it anyway"
        )


def _winners(folder: StudyFolder, study: Study, ledger: Ledger, include_suspect: bool) -> list[TrialRecord]:
    """The completed trials that keep the bounds, best first. Raises StudyError, which says why, where there is none."""
    goal = study.objective[0]
    refused = {} if include_suspect else disbelieved(folder, ledger)
    ranked = [trial for trial in ledger.ranked(goal, include_suspect=include_suspect) if trial.number not in refused]
    if not ranked and (ledger.suspects or refused):
        numbers = ", ".join(map(str, sorted({trial.number for trial in ledger.suspects} | refused.keys())))
        raise StudyError(
            f"every completed trial of {folder.path} is suspect ({numbers}): `sweep status` says why; "
            "--include-suspect exports one anyway"
        )
    if not ranked:
        counts = ", ".join(f"{count} {end}" for end, count in sorted(ledger.counts().items())) or "none yet"
        raise StudyError(
            f"{folder.path} has no completed trial to export (trials: {counts}); resume it, or look at a trial"
        )
    winners = [trial for trial in ranked if trial.rank(goal)[0] == 1]
    if not winners:
        bounds = ", ".join(goal.subject_to)
        raise StudyError(
            f"no trial of {folder.path} keeps the objective's bounds on {bounds}; --trial N exports one anyway"
        )
    return winners


def _clean(trial: TrialRecord) -> float:
    return float((trial.best or {"metrics": {}})["metrics"].get(_CLEAN, 0.0))


def _range(ledger: Ledger) -> str:
    return f"trials are 0 to {len(ledger.trials) - 1}" if ledger.trials else "the study has no trials yet"
