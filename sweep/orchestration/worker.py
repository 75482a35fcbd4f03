"""A trial's side of a sweep: it turns an assignment into messages, whoever carries them (Ray, or this process)."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sweep.configuration import TrialConfig
from sweep.errors import Collapsed, DiskFullError, Diverged, StorageError
from sweep.orchestration.storage import below, is_uri
from sweep.orchestration.working import working_copy
from sweep.registry import validated
from sweep.trial import Trial

ERROR = "error.txt"
LONGEST_MESSAGE = 500  # characters of an error that go to the journal; the trial's folder keeps all of it


@dataclass(frozen=True)
class Assignment:
    """One trial to run: plain data, so that it can go anywhere."""

    number: int
    config: dict[str, Any]
    folder: str  # a path, or a store's URI
    reported: int  # the last epoch that the journal holds
    share: int = 1  # times the study's resources that it gets: more after it ran out of memory
    checkpoint_seconds: float = 0.0  # at least so long between two checkpoints

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def messages(assignment: Assignment) -> Iterator[dict[str, Any]]:
    """A first message, ``{"log"}``; one an epoch, ``{"epoch", "metrics"}``; a last one, ``{"end", "selected", "final",
    "validity", "files", "error"}``.

    Before the epochs ``{"note"}`` where something in the trial's folder was set aside, and at any time where the store
    that keeps the folder is away; instead of an end ``{"halted"}`` where the disk is full, or the store refuses: no
    fault of the trial's, which goes on when the sweep does. The store has what a message tells of before it is given.
    Every message says where it comes from. An exception of the trial is its end, not ours: ``failed``, or
    ``out_of_memory``, which has ``"memory"`` beside it: that of the ``gpu`` or of the ``host``.
    """
    origin = {"trial": assignment.number, "node": socket.gethostname(), "pid": os.getpid()}
    yield origin | {"log": _log()}
    if not is_uri(assignment.folder):
        for message in _told(assignment, Path(assignment.folder)):
            yield origin | message
        return
    try:
        with working_copy(assignment.folder) as copy:
            for sentence in copy.bring():
                yield origin | _waiting(sentence)
            for message in _told(assignment, copy.folder):
                for sentence in copy.send():
                    yield origin | _waiting(sentence)
                yield origin | message
    except StorageError as error:
        yield origin | {"halted": f"on {origin['node']}, {error}", "store": assignment.folder}


def _told(assignment: Assignment, folder: Path) -> Iterator[dict[str, Any]]:
    """What a trial that works in this folder has to say."""
    try:
        config = validated(TrialConfig, assignment.config, f"trial {assignment.number}")
        trial = Trial(config, folder, checkpoint_seconds=assignment.checkpoint_seconds)
        if trial.note:
            yield {"note": trial.note}
        for result in trial.run(assignment.reported):
            yield {"epoch": result.epoch, "metrics": result.metrics}
        final = trial.finish()
        validity = trial.validity.to_json() if trial.validity else None
        selected = {"epoch": trial.selected.epoch, "metrics": trial.selected.metrics}
        ending = {"final": final, "validity": validity, "files": trial.files, "error": None}
        yield {"end": "completed", "selected": selected, **ending}
    except Diverged as error:
        yield {"end": "diverged", "final": None, "error": describe(error)}
    except Collapsed as error:
        yield {"end": "stopped", "final": None, "error": describe(error)}
    except DiskFullError as error:
        yield {"halted": str(error)}
    except Exception as error:
        there = below(assignment.folder, ERROR) if is_uri(assignment.folder) else str(folder / ERROR)
        log = _write(folder / ERROR, traceback.format_exc(), there)
        memory = exhausted(error)
        end = {"end": "out_of_memory", "memory": memory} if memory else {"end": "failed"}
        yield end | {"final": None, "error": describe(error) | log}


def _waiting(sentence: str) -> dict[str, Any]:
    return {"note": f"{sentence}; the trial waits for it"}


def describe(error: BaseException) -> dict[str, str]:
    """An error as one readable line."""
    lines = str(error).strip().splitlines()
    message = " ".join(line.strip() for line in lines)[:LONGEST_MESSAGE] if lines else ""
    return {"class": type(error).__name__, "message": message}


def exhausted(error: BaseException) -> Literal["gpu", "host"] | None:
    """Whose memory ran out, where that is what went wrong. Torch has no class of its own for the host's."""
    if isinstance(error, torch.OutOfMemoryError):
        return "gpu"
    is_hosts = isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
    return "host" if is_hosts else None


def _write(path: Path, text: str, shown: str) -> dict[str, str]:
    """Keep an error's whole text, and say where others find it; a disk that takes no more shall not hide the error."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return {"log": shown}
    return {}


def _log() -> str | None:
    """The file that this process's errors go to, where it is one: a killed process can tell no more than that."""
    with suppress(OSError):
        path = Path("/proc/self/fd/2").resolve()
        return str(path) if path.is_file() else None
    return None
