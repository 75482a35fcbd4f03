"""Who runs a study on this machine, or on this file system: a file in its folder, locked as long as its owner lives."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from sweep.errors import StudyError
from sweep.resources import is_alive

_NAME = "lock"


class RunsHereError(StudyError):
    """Another process owns the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Be the only one to work on a study's folder. Gives the owner before, where that is gone, else nothing."""
    with _held(folder) as file:
        before = _owner(file)
        _write(file, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}))
        try:
            yield before
        finally:
            _write(file, "")


def refuse_running(folder: Path) -> None:
    """Raise RunsHereError where another process works on the folder: before what takes long, and a lock comes after."""
    with _held(folder):
        pass


@contextmanager
def _held(folder: Path) -> Iterator[TextIO]:
    """The lock's file, locked, as the owner before has left it."""
    with (folder / _NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunsHereError(
                f"{folder} is being run by {_owner(file) or 'another process'}; wait for it or stop it"
            ) from None
        except OSError as error:
            raise StudyError(
                f"{folder} is on a file system without locks ({error.strerror}): choose another --studies folder"
            ) from None
        yield file


def runner(folder: Path) -> str | None:
    """The process that owns the folder, as far as its file tells; None where it is gone. Takes no lock."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads((folder / _NAME).read_text())
        if owner["host"] != socket.gethostname() or is_alive(owner["pid"]):
            return f"process {owner['pid']} on {owner['host']}"
    return None


def _owner(file: TextIO) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return ""


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
