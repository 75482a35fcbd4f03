"""Taking a trial away: its configuration (runs again with `sweep trial`), its weights, its figures."""

from __future__ import annotations

import shutil
from pathlib import Path

from sweep import checkpoint
from sweep.errors import StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

FILES = ("config.json", "metrics.json")


def best(folder: StudyFolder, ledger: Ledger, *, include_suspect: bool = False) -> TrialRecord:
    """The best completed trial that keeps the objective's bounds, by its first goal; never a suspect one unasked."""
    study = folder.study()
    if confirms := study.confirms:
        candidates = ", ".join(map(str, confirms.trials))
        raise StudyError(
            f"the best of a confirmation would be its luckiest seed: `sweep export {confirms.study} --trial N` takes a "
            f"candidate away (trial {candidates}), and `sweep export {folder.path.name} --trial N` one of its trainings"
        )
    goal = study.objective[0]
    ranked = ledger.ranked(goal, include_suspect=include_suspect)
    if not ranked and ledger.suspects:
        numbers = ", ".join(str(trial.number) for trial in ledger.suspects)
        raise StudyError(
            f"every completed trial of {folder.path} is suspect ({numbers}): `sweep status` says why; "
            "--include-suspect exports one anyway"
        )
    if not ranked:
        counts = ", ".join(f"{count} {end}" for end, count in sorted(ledger.counts().items())) or "none yet"
        raise StudyError(
            f"{folder.path} has no completed trial to export (trials: {counts}); resume it, or look at a trial"
        )
    if ranked[0].rank(goal)[0] < 1:
        bounds = ", ".join(goal.subject_to)
        raise StudyError(
            f"no trial of {folder.path} keeps the objective's bounds on {bounds}; --trial N exports one anyway"
        )
    return ranked[0]


def completed(ledger: Ledger, number: int, *, include_suspect: bool = False) -> TrialRecord:
    """Trial `number`, if it can be exported."""
    trial = ledger.trials.get(number)
    if trial is None:
        raise StudyError(f"there is no trial {number}; {_range(ledger)}")
    if trial.end == "completed" and trial.best is None:
        raise StudyError(f"trial {number} never reported the objective, so no epoch of it can be chosen")
    if trial.end != "completed":
        raise StudyError(f"trial {number} is {trial.end or 'still running'}: only a completed trial can be exported")
    if trial.is_suspect and trial.validity and not include_suspect:
        failed = ", ".join(trial.validity["suspect"])
        raise StudyError(f"trial {number} is suspect ({failed}); --include-suspect exports it anyway")
    return trial


def standing(study: Study, trial: TrialRecord) -> str:
    """What the trial's figures are worth, in words: a search chose them, or they are one seed of a confirmation."""
    if study.confirms is None:
        return "unconfirmed"
    candidate = study.confirms.trials[trial.number % len(study.confirms.trials)]
    return f"one of {study.confirms.seeds} seeds that confirm trial {candidate} of {study.confirms.study}"


def _range(ledger: Ledger) -> str:
    return f"trials are 0 to {len(ledger.trials) - 1}" if ledger.trials else "the study has no trials yet"


def export(folder: StudyFolder, trial: TrialRecord, to: Path, *, force: bool = False) -> list[Path]:
    """Copy a completed trial's configuration, figures and selected weights into a folder. Never overwrites unasked."""
    source = folder.trial(trial.number)
    weights = "best.safetensors" if trial.config["select"] == "best" else "last.safetensors"
    copies = {name: source / name for name in FILES} | {"model.safetensors": source / weights}
    missing = [str(path) for path in copies.values() if not path.exists()]
    if missing:
        raise StudyError(f"trial {trial.number} cannot be exported: {', '.join(missing)} is missing")
    taken = [str(to / name) for name in copies if (to / name).exists()]
    if taken and not force:
        raise StudyError(f"{', '.join(taken)} exists already; choose another folder, or --force to overwrite")
    for name, path in copies.items():
        checkpoint.write_atomically(to / name, lambda temporary, path=path: shutil.copyfile(path, temporary) and None)  # type: ignore[misc]
    return [to / name for name in copies]
