"""Whether a completed trial's files are those that it left, and that its figures in the journal were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    if (file := folder.trial(trial.number) / METRICS).exists():
        left = load_json(file)
        selected = {"epoch": left.get("selected_epoch"), "metrics": left.get("selected") or {}}
        if left.get("final") != trial.final or not alike(selected, trial.best):
            raise CheckpointError(_contradicted(file, trial, "figures"))
        if left.get("validity") != trial.validity:
            raise CheckpointError(_contradicted(file, trial, "validity"))
    return take(folder.trial(trial.number), to)


def ending(message: Mapping[str, Any], best: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """How a trial's last message ends it, and with what, `best` being the epoch that counts by its reports.

    An epoch that was reported and not saved is trained again after a crash: to other figures, on a machine that
    computes otherwise. What the trial then leaves is not the network that its reports tell of, and it fails.
    """
    selected = message.get("selected")
    if selected is None or alike(selected, best):
        return message["end"], {name: message.get(name) for name in ("final", "validity", "files", "error")}
    told = f"by its reports epoch {best['epoch']} counts" if best else "its reports have no figures to choose by"
    text = (
        "after a crash it went on from its checkpoint on a machine that computes otherwise, and its epochs came out "
        f"otherwise: its network is that of epoch {selected['epoch']}, {told}, or the figures differ"
    )
    return "failed", {"error": {"class": "Unreproduced", "message": text}}


def alike(selected: Mapping[str, Any], best: Mapping[str, Any] | None) -> bool:
    """Whether two accounts of an epoch, ``{"epoch", "metrics"}``, are of one network. Seconds and memory may differ."""
    return best is not None and selected["epoch"] == best["epoch"] and _figures(selected) == _figures(best)


def _figures(account: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in account["metrics"].items() if "seconds" not in name and "memory" not in name}


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
