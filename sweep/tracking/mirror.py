"""A journal sent elsewhere by a thread that no sweep waits for.

The journal is the truth and the mirror a copy that may lag, be away for a day, or be made again from nothing. A cursor,
the number of the journal's bytes that the destination has acknowledged, is kept in the study folder. Whatever was sent
after the cursor was last written is sent again, so a destination must take an event twice and hold it once.
"""

from __future__ import annotations

import fcntl
import json
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from sweep.errors import SweepError
from sweep.tracking.journal import FILE_NAME, read

CURSOR = "mirror.json"
_LOCK = "mirror.lock"
_EVENTS_AT_ONCE = 100  # read, and sent between two writes of the cursor: what bounds the memory


class RefusalError(Exception):
    """The destination understood the event and will never take it: it is counted and passed over."""


class Destination(Protocol):
    """Where events go."""

    @property
    def is_new(self) -> bool:
        """Nothing of this journal was there when it was connected to, whatever the cursor says."""

    def send(self, event: dict[str, Any]) -> None:
        """Return once the event is acknowledged. Events arrive in order, the last few perhaps twice."""


class JournalMirror(ABC):
    """Follows the journal in `folder` and sends its events to `address`, which must hold no credentials.

    `last_error` is the sentence that says why the mirror is behind at the moment, or None; `refused` counts the events
    that were passed over, and `last_refusal` says why the last of them was. Times are in seconds.
    """

    poll_interval = 1.0
    longest_wait = 60.0

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.journal = folder / FILE_NAME
        self.last_error: str | None = None
        self.last_refusal: str | None = None
        self.refused = 0
        self._address = address
        self._destination: Destination | None = None
        self._cursor = 0
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._deadline = math.inf

    @abstractmethod
    def _connect(self) -> Destination:
        """Reach the destination and look at what it has of this journal, which holds at least one event."""

    @abstractmethod
    def _explain(self, error: Exception) -> str:
        """One plain sentence without credentials."""

    def start(self) -> None:
        """Follow the journal from a thread of its own, until `stop`."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._closing.clear()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._follow, name="journal mirror", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> int:
        """Let the thread send what is left, for at most `timeout` seconds; returns the bytes still unsent (0: none)."""
        self._deadline = time.monotonic() + timeout
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout)
        return max(0, self._size() - self._read_cursor())

    def sync(self) -> int:
        """Send all that is left, now and from the calling thread; returns the number of events sent.

        Raises SweepError when the destination cannot be reached; what it took until then is not sent again.
        """
        self._deadline = math.inf
        total = 0
        try:
            while sent := self._send_some():
                total += sent
        except Exception as error:
            raise SweepError(self._note(error)) from error
        self.last_error = None
        return total

    def _follow(self) -> None:
        failures = 0
        while time.monotonic() < self._deadline:
            try:
                sent = self._send_some()
                self.last_error = None
                failures = 0
            except Exception as error:  # a sweep must not learn of anything that goes wrong here
                self._note(error)
                sent = 0
                failures += 1
            if self._closing.is_set() and not sent and not failures:
                return
            if not sent:
                self._wait(min(self.poll_interval * 2 ** min(failures, 10), self.longest_wait))

    def _wait(self, seconds: float) -> None:
        if self._closing.is_set():  # the last tries before the deadline are closer together
            time.sleep(max(0.0, min(seconds, self.poll_interval, self._deadline - time.monotonic())))
        else:
            self._closing.wait(seconds)

    def _note(self, error: Exception) -> str:
        self._destination = None  # what it knew of the other side may no longer hold
        self.last_error = str(error) if isinstance(error, SweepError) else self._explain(error)
        return self.last_error

    def _send_some(self) -> int:
        """Send the next events and move the cursor past those that were acknowledged; returns their number."""
        if self._destination is not None and self._size() == self._cursor:
            return 0
        with self._alone():
            cursor = self._read_cursor()
            if self._size() <= cursor:
                return 0
            if self._destination is None or cursor != self._cursor:  # connect again after another process has sent
                self._destination = self._connect()
                if self._destination.is_new:
                    cursor = 0
                    self._write_cursor(cursor)  # before anything is made there, lest a second try think all is well
            sent = 0
            try:
                for event, after in islice(read(self.journal, offset=cursor), _EVENTS_AT_ONCE):
                    if time.monotonic() >= self._deadline:
                        break
                    self._send(self._destination, event)
                    cursor, sent = after, sent + 1
            finally:
                self._write_cursor(cursor)
        return sent

    def _send(self, destination: Destination, event: dict[str, Any]) -> None:
        try:
            destination.send(event)
        except RefusalError as refusal:
            self.refused += 1
            self.last_refusal = str(refusal)

    def _size(self) -> int:
        return self.journal.stat().st_size if self.journal.exists() else 0

    def _read_cursor(self) -> int:
        """The cursor on disk, or 0 if it is another destination's or does not stand between two of the lines."""
        try:
            saved = json.loads((self.folder / CURSOR).read_text())
            cursor = int(saved["cursor"]) if saved["address"] == self._address else 0
            with self.journal.open("rb") as file:
                file.seek(max(cursor - 1, 0))
                return cursor if file.read(1) == b"\n" else 0
        except (OSError, ValueError, TypeError, KeyError):
            return 0

    def _write_cursor(self, cursor: int) -> None:
        partial = self.folder / f"{CURSOR}.partial"
        partial.write_text(json.dumps({"cursor": cursor, "address": self._address}))
        partial.replace(self.folder / CURSOR)
        self._cursor = cursor

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One sender at a time, in whatever process: a second one waits for the first."""
        with (self.folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def standing(folder: Path) -> str:
    """How far a mirror of this study has come: a line from what lies in its folder, without asking anybody."""
    try:
        cursor = int(json.loads((folder / CURSOR).read_text())["cursor"])
    except (OSError, ValueError, TypeError, KeyError):
        cursor = 0
    data = (folder / FILE_NAME).read_bytes()
    if cursor > len(data):
        return f"was sent {cursor - len(data):,} bytes that the journal no longer holds; it is sent anew"
    asked = b' {"event":"asked",'  # inside of a value it would have backslashes
    runs, trials = data.count(asked, 0, cursor), data.count(asked)
    return f"{runs} of {trials} trials have their run; {len(data) - cursor:,} bytes of the journal are to be sent"
