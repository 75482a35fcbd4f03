"""A trial's side of a sweep: it turns an assignment into messages, whoever carries them (Ray, or this process)."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweep.configuration import TrialConfig
from sweep.errors import Diverged
from sweep.registry import validated
from sweep.trial import Trial

LONGEST_MESSAGE = 500  # characters of an error that go to the journal; the trial's folder keeps all of it


@dataclass(frozen=True)
class Assignment:
    """One trial to run: plain data, so that it can go anywhere."""

    number: int
    config: dict[str, Any]
    folder: str
    reported: int  # the last epoch that the journal holds

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def messages(assignment: Assignment) -> Iterator[dict[str, Any]]:
    """One message an epoch, ``{"epoch", "metrics"}``, and a last one, ``{"end", "final", "error"}``.

    Every message says where it comes from. An exception of the trial is its end, not ours.
    """
    origin = {"trial": assignment.number, "node": socket.gethostname(), "pid": os.getpid()}
    try:
        config = validated(TrialConfig, assignment.config, f"trial {assignment.number}")
        trial = Trial(config, Path(assignment.folder))
        for result in trial.run(assignment.reported):
            yield origin | {"epoch": result.epoch, "metrics": result.metrics}
        yield origin | {"end": "completed", "final": trial.finish(), "error": None}
    except Diverged as error:
        yield origin | {"end": "diverged", "final": None, "error": describe(error)}
    except Exception as error:
        text = traceback.format_exc()
        path = Path(assignment.folder) / "error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        yield origin | {"end": "failed", "final": None, "error": describe(error) | {"log": str(path)}}


def describe(error: BaseException) -> dict[str, str]:
    """An error as one readable line."""
    lines = str(error).strip().splitlines()
    message = " ".join(line.strip() for line in lines)[:LONGEST_MESSAGE] if lines else ""
    return {"class": type(error).__name__, "message": message}
