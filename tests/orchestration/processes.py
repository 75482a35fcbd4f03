"""Processes that stand still at a moment of their study, however fast they are and however slow a test is to look; and
what a Ray has started. Not a test by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

SWEEP = "from sweep.cli import main; main()"
_PAUSING = """
import os, signal
from sweep.tracking.journal import Journal

told, is_due = [], True


def append(self, event, write=Journal.append, **fields):
    global is_due
    told.append(write(self, event, **fields))
    if is_due and ({moment}):
        is_due = False
        os.kill(os.getpid(), signal.SIGSTOP)
    return told[-1]


Journal.append = append
"""


def pausing(moment: str, script: str = SWEEP) -> list[str]:
    """The command for a script that runs a study, and stands still as soon as this is true of `told`, the events that
    it has journaled (an expression of Python). Then `paused` returns; SIGCONT lets it go on, once and for all."""
    return [sys.executable, "-c", _PAUSING.format(moment=moment) + script]


def paused(process: subprocess.Popen[Any]) -> None:
    """Wait until it stands still."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "it ended before that moment"


def killed(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def of_ray(folder: str | Path) -> Iterator[int]:
    """The processes whose Ray has this folder: all that it started, its drivers too."""
    mark = f"RAY_TMPDIR={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if mark in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name)
