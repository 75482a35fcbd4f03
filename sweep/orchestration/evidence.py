"""Whether a completed trial's files are those that it left, and that its figures in the journal were measured on."""

from __future__ import annotations

from pathlib import Path

from sweep.checkpoint import digest
from sweep.configuration import TrialConfig
from sweep.errors import CheckpointError
from sweep.exported import load_json, take
from sweep.orchestration.folder import StudyFolder
from sweep.registry import validated
from sweep.tracking.ledger import TrialRecord
from sweep.trial import CONFIG, METRICS, WEIGHTS


def taken(folder: StudyFolder, trial: TrialRecord, to: Path) -> TrialConfig:
    """Copy a completed trial's configuration, figures and selected weights to an export's folder, each proven.

    Raises StudyError where something of it is missing, CheckpointError where the journal contradicts it.
    """
    config = validated(TrialConfig, trial.config, f"trial {trial.number}")
    for name in (CONFIG, METRICS, WEIGHTS[config.select]):
        proven(folder, trial, name)
    if (file := folder.trial(trial.number) / CONFIG).exists():  # an older version left out what has a default now
        found = validated(TrialConfig, load_json(file), str(file))
        if found.fingerprint != config.fingerprint:
            raise CheckpointError(_contradicted(file, trial, "configuration"))
    if (file := folder.trial(trial.number) / METRICS).exists() and load_json(file).get("final") != trial.final:
        raise CheckpointError(_contradicted(file, trial, "figures"))
    return take(folder.trial(trial.number), to)


def proven(folder: StudyFolder, trial: TrialRecord, name: str) -> Path:
    """One of a completed trial's files, with the content that it left; one that is missing is its reader's to miss.

    Journals of before digests were in them prove nothing. Raises CheckpointError where it is another content.
    """
    file, known = folder.trial(trial.number) / name, trial.files.get(name)
    if known is not None and file.exists() and digest(file) != known:
        raise CheckpointError(_contradicted(file, trial, "SHA-256"))
    return file


def _contradicted(file: Path, trial: TrialRecord, what: str) -> str:
    """The refusal of a file that is not what its trial left."""
    return (
        f"{file} is not what trial {trial.number} left: the journal has another {what}; restore the file from a copy, "
        "or choose another trial"
    )
