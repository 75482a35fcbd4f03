"""What a session finds, proven: each event follows from those before it, and Optuna holds what the journal says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sweep.errors import StudyError, counted
from sweep.orchestration.early_stopping import Rungs
from sweep.orchestration.turns import next_turn
from sweep.study import Study
from sweep.tracking.ledger import Ledger
from sweep.tracking.plausible import impossible


def contradiction(
    event: Mapping[str, Any], study: Study, ledger: Ledger, fingerprint: str, rungs: Rungs | None
) -> str | None:
    """Why an event cannot follow those that the ledger and the rungs hold, or None. `fingerprint` is the study's."""
    kind, number = event["event"], event.get("trial")
    if kind == "session":
        return _session(event, ledger, fingerprint)
    if kind == "asked":
        return _asked(event, study, ledger, rungs)
    return None if number is None else _of_a_trial(event, ledger) or impossible(event, study, ledger)


def refuse_disagreements(folder: Path, sentences: Iterable[str]) -> None:
    """Raise StudyError where Optuna, rebuilt, holds anything else than the journal says."""
    if found := list(islice(sentences, 3)):
        raise StudyError(
            f"{folder}: Optuna's study, rebuilt, is not the journal's: {'; '.join(found)}. "
            "Resume with the versions of sweep and optuna that study.json names"
        )


def _session(event: Mapping[str, Any], ledger: Ledger, fingerprint: str) -> str | None:
    if event["session"] != ledger.sessions + 1:
        return f"begins session {event['session']}, where session {ledger.sessions + 1} is the next"
    if event.get("fingerprint", fingerprint) != fingerprint:
        return f"was written for a study with the fingerprint {event['fingerprint']}, and study.json has {fingerprint}"
    return None


def _asked(event: Mapping[str, Any], study: Study, ledger: Ledger, rungs: Rungs | None) -> str | None:
    number, expected = event["trial"], len(ledger.trials)
    if number != expected:
        return f"asks trial {number}, where trial {expected} is the next"
    branch, turn = event["params"].get("defense"), next_turn(study, ledger).branch
    if turn not in (None, branch):
        return f"asks a trial of {branch}, where it is the turn of {turn}"
    promotion = rungs.promotion(turn) if rungs else None
    due = (promotion.trial.number, promotion.epochs) if promotion else None
    source = event.get("promoted_from")
    said = None if source is None else (source, event["config"]["epochs"])
    return None if said == due else f"{_promotes(said)}, where {_promotes(due)} is due"


def _promotes(promotion: tuple[int, int] | None) -> str:
    return (
        "no promotion" if promotion is None else f"trial {promotion[0]}'s promotion to {counted(promotion[1], 'epoch')}"
    )


def _of_a_trial(event: Mapping[str, Any], ledger: Ledger) -> str | None:
    kind, number = event["event"], event["trial"]
    if number not in ledger.trials:
        return f"'{kind}' speaks of trial {number}, which was never asked"
    trial = ledger.trials[number]
    if kind in ("started", "reported", "lost", "ended") and trial.end is not None:
        return f"'{kind}' speaks of trial {number}, which was over ({trial.end})"
    if kind == "reopened" and trial.end != "failed":
        return f"'{kind}' speaks of trial {number}, which had not failed ({trial.end or 'it runs'})"
    if kind == "reported" and event["epoch"] != trial.epoch + 1:
        return f"trial {number} reports epoch {event['epoch']}, where epoch {trial.epoch + 1} is the next"
    return None
