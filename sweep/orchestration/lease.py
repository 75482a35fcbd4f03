"""Who runs a study that is kept in a store: a file there, renewed as long as its owner lives.

A store knows no locks. The owner writes its name, and every few seconds that it still lives; who would be the next
watches for longer than that, by its own clock alone. Of two that take it in one moment, the last one to write finds its
own name a moment later, and the other one does not. An owner that was cut off finds another's name, and stops.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from sweep.errors import StudyError
from sweep.orchestration.storage import Storage
from sweep.resources import is_alive

NAME = "lock.json"
BEAT = 5.0  # seconds between two signs of life
PATIENCE = 30.0  # seconds without one, after which an owner is dead
SETTLE = 0.5  # seconds after which it is seen who was the last to take it


class Lease:
    """The right to run the study in `storage`, for one process."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._here = {"host": socket.gethostname(), "pid": os.getpid(), "place": _place(), "token": uuid4().hex}
        self._beats = 0

    def take(self) -> str | None:
        """Own the study; the former owner, where one is gone that had not given it back. Raises StudyError where one
        lives."""
        found = read(self._storage)
        if found and not _is_gone(found):
            self._watch(found)
        self._write()
        time.sleep(SETTLE)
        if (now := read(self._storage)) is None or now["token"] != self._here["token"]:
            raise self._refusal(now)
        return described(found) if found else None

    def renew(self) -> str | None:
        """Give a sign of life; who owns the study now, where that is another."""
        now = read(self._storage)
        if now is not None and now["token"] != self._here["token"]:
            return described(now)
        self._write()
        return None

    def give_back(self) -> None:
        found = read(self._storage)
        if found is not None and found["token"] == self._here["token"]:
            self._storage.delete(NAME)

    def _write(self) -> None:
        self._beats += 1
        self._storage.write(NAME, json.dumps(self._here | {"beats": self._beats, "time": time.time()}).encode())

    def _watch(self, found: dict[str, Any]) -> None:
        """Return when this owner is dead, or gave the study back; raise StudyError where it gives a sign of life."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(min(1.0, PATIENCE / 10))
            now = read(self._storage)
            if now is None:
                return
            if (now["token"], now["beats"]) != (found["token"], found["beats"]):
                raise self._refusal(now)

    def _refusal(self, owner: dict[str, Any] | None) -> StudyError:
        by = described(owner) if owner else "another process"
        return StudyError(f"{self._storage} is being run by {by}; wait for it or stop it")


def read(storage: Storage) -> dict[str, Any] | None:
    """What the owner last wrote; None where there is none."""
    content = storage.read(NAME)
    with suppress(ValueError):
        found = json.loads(content or b"")
        if isinstance(found, dict) and {"host", "pid", "place", "token", "beats", "time"} <= found.keys():
            return found
    return None


def runner(storage: Storage) -> str | None:
    """The process that runs the study, by its last sign of life and both machines' clocks; None where it is gone."""
    found = read(storage)
    return described(found) if found and not _is_gone(found) and time.time() - found["time"] < 4 * PATIENCE else None


def described(owner: dict[str, Any]) -> str:
    return f"process {owner['pid']} on {owner['host']}"


def _is_gone(owner: dict[str, Any]) -> bool:
    """Whether it was a process of this very machine, and is there no more."""
    return bool(owner["place"]) and owner["place"] == _place() and not is_alive(owner["pid"])


def _place() -> str:
    """Where process numbers mean the same, as Linux tells: this start of this machine, and this container on it."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    return ""
