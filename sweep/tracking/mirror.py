"""A journal sent elsewhere by a thread that no sweep waits for.

The journal is the truth and the mirror a copy that may lag, be away for a day, or be made again from nothing. For each
destination a cursor, the number of the journal's bytes that it has acknowledged, is kept in the study folder. Whatever
was sent after the cursor was last written is sent again, so a destination must take an event twice and hold it once.
"""

from __future__ import annotations

import fcntl
import json
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from sweep.errors import SweepError, counted
from sweep.tracking.journal import FILE_NAME, read

STATE = "mirror.json"
_LOCK = "mirror.lock"
_EVENTS_AT_ONCE = 200  # read, sent, and acknowledged by a write of the cursor: what bounds the memory
_LONGEST_EVENT = 5000  # bytes; in longer ones it is only later noticed how many wait


class Destination(Protocol):
    """Where events go."""

    @property
    def is_new(self) -> bool:
        """Nothing of this journal was there when it was connected to, whatever the cursor says."""

    def send(self, events: Sequence[dict[str, Any]]) -> Sequence[str]:
        """Return once all are acknowledged; what it understood and will never take, in a sentence each.

        Events arrive in order, the last few hundred perhaps twice.
        """


class JournalMirror(ABC):
    """Follows the journal in `folder` and sends its events to `address`, which must hold no credentials.

    `last_error` is the sentence that says why the mirror is behind at the moment, or None; `refused` counts the events
    that were passed over, and `last_refusal` says why the last of them was. Times are in seconds.
    """

    poll_interval = 5.0
    longest_wait = 60.0
    rest = 400.0  # times as long as it has just worked: most of what it takes of a sweep is then its imports

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.journal = folder / FILE_NAME
        self.last_error: str | None = None
        self.last_refusal: str | None = None
        self.refused = 0
        self.say: Callable[[str], None] = lambda text: None  # hears of each outage's beginning and end
        self._address = address
        self._destination: Destination | None = None
        self._cursor = 0
        self._is_doubtful = False
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._deadline = math.inf

    @abstractmethod
    def _connect(self) -> Destination:
        """Reach the destination and look at what it has of this journal, which holds at least one event.

        What a request whose answer was lost has made there twice is put right.
        """

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
        """Let the thread send what is left, for at most `timeout` seconds; returns the events still unsent."""
        self._deadline = time.monotonic() + timeout
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout)
        return self.unsent()

    def unsent(self) -> int:
        """The number of events that the destination has not acknowledged."""
        return unsent(self.folder, self._address)

    def sync(self, *, again: bool = False) -> int:
        """Send all that is left, or everything `again`, now and from the calling thread; returns the events sent.

        Raises SweepError when the destination cannot be reached; what it acknowledged until then is not sent again.
        """
        self._deadline = math.inf
        total = 0
        try:
            if again:
                with self._alone():
                    self._destination = None
                    self._write_cursor(0)
            while sent := self._send_some():
                total += sent
        except Exception as error:
            raise SweepError(self._note(error)) from error
        self.last_error = None
        return total

    def _follow(self) -> None:
        failures = int(self.last_error is not None)  # of an outage that was told of already
        is_known = False  # whether the state names this destination as the sweep's own
        while time.monotonic() < self._deadline:
            began, sent = time.monotonic(), 0
            is_last = self._closing.is_set()  # asked first: what was journaled before the end is then surely seen
            try:
                is_known = is_known or self._name_destination()
                sent = self._send_some(look_again=is_last and self._is_doubtful)
                if sent or time.monotonic() < self._deadline:  # else it had no time to try
                    self._recover(failures)
                    failures = 0
            except Exception as error:  # a sweep must not learn of anything that goes wrong here
                failures += 1
                self._fail(error, failures)
            if is_last and not sent and not failures:
                return
            self._wait(sent, failures, time.monotonic() - began)

    def _wait(self, sent: int, failures: int, worked: float) -> None:
        """Leave the machine to the sweep; near the end, only until a failed destination is tried again."""
        if failures and not self._closing.is_set():
            self._closing.wait(min(self.poll_interval * 2 ** min(failures, 10), self.longest_wait))
        elif not self._closing.is_set():
            rested = time.monotonic() + min(max(self.poll_interval, self.rest * worked), self.longest_wait)
            # Trials that end faster than it would rest are followed without: they would be hours ahead of it.
            while (left := rested - time.monotonic()) > 0 and not self._is_far_behind():
                if self._closing.wait(min(left, self.poll_interval)):
                    return
        elif not sent:
            time.sleep(max(0.0, min(self.poll_interval, 1.0, self._deadline - time.monotonic())))

    def _is_far_behind(self) -> bool:
        """Whether as many events wait as are sent at once."""
        with suppress(OSError), self.journal.open("rb") as file:
            file.seek(self._cursor)
            return file.read(_EVENTS_AT_ONCE * _LONGEST_EVENT).count(b"\n") >= _EVENTS_AT_ONCE
        return False

    def _fail(self, error: Exception, failures: int) -> None:
        sentence = self._note(error)
        if failures == 1 and not self._closing.is_set():
            self.say(f"tracking is behind: {sentence}; the sweep goes on, and what is missing is sent later")

    def _recover(self, failures: int) -> None:
        self.last_error = None
        if failures and not self._closing.is_set():
            self.say(f"tracking goes on: {self._address} answers again")

    def _note(self, error: Exception) -> str:
        self._destination = None  # what it knew of the other side may no longer hold
        self._is_doubtful = True  # a request that was given up may yet be carried out, when we no longer look
        self.last_error = str(error) if isinstance(error, SweepError) else self._explain(error)
        return self.last_error

    def _send_some(self, *, look_again: bool = False) -> int:
        """Send the next events and move the cursor past them when they are acknowledged; returns their number.

        Where there are none, `look_again` has the destination connected to nevertheless.
        """
        if self._destination is not None and self._size() == self._cursor and not look_again:
            return 0
        with self._alone():
            cursor = _cursor(self.folder, self._address)
            is_behind = self._size() > cursor
            if not (is_behind or look_again) or time.monotonic() >= self._deadline:
                return 0
            # Connect again after another process has sent.
            if self._destination is None or cursor != self._cursor or not is_behind:
                self._destination = self._connect()
                self._is_doubtful = self._is_doubtful and is_behind
                if self._destination.is_new:
                    cursor = 0
                    self._write_cursor(cursor)  # before anything is made there, lest a second try think all is well
            events = list(islice(read(self.journal, offset=cursor), _EVENTS_AT_ONCE))
            refusals = self._destination.send([event for event, _ in events]) if events else ()
            if refusals:
                self.refused += len(refusals)
                self.last_refusal = refusals[-1]
            self._write_cursor(events[-1][1] if events else cursor)
        return len(events)

    def _size(self) -> int:
        return self.journal.stat().st_size if self.journal.exists() else 0

    def _write_cursor(self, cursor: int) -> None:
        address, cursors = mirrored(self.folder)
        self._write_state(address or self._address, cursors | {self._address: cursor})
        self._cursor = cursor

    def _name_destination(self) -> bool:
        with self._alone():
            address, cursors = mirrored(self.folder)
            if address != self._address:
                self._write_state(self._address, cursors)
        return True

    def _write_state(self, address: str, cursors: dict[str, int]) -> None:
        partial = self.folder / f"{STATE}.partial"
        partial.write_text(json.dumps({"address": address, "cursors": cursors}))
        partial.replace(self.folder / STATE)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One sender at a time, in whatever process: a second one waits for the first."""
        with (self.folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def mirrored(folder: Path) -> tuple[str | None, dict[str, int]]:
    """Where a study's own sweep sends its journal, or None; and what each destination has acknowledged, in bytes."""
    try:
        state = json.loads((folder / STATE).read_text())
        address, cursors = state["address"], state["cursors"]
        return str(address), {str(name): max(int(cursor), 0) for name, cursor in cursors.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None, {}


def unsent(folder: Path, address: str) -> int:
    """The number of events of the journal in `folder` that the destination at `address` has not acknowledged."""
    journal = folder / FILE_NAME
    return sum(1 for _ in read(journal, offset=_cursor(folder, address))) if journal.exists() else 0


def _cursor(folder: Path, address: str) -> int:
    """The cursor on disk, or 0 if there is none for this destination or it stands not between two of the lines."""
    cursor = mirrored(folder)[1].get(address, 0)
    try:
        with (folder / FILE_NAME).open("rb") as file:
            file.seek(max(cursor - 1, 0))
            return cursor if file.read(1) == b"\n" else 0
    except OSError:
        return 0


def standing(folder: Path) -> str:
    """How far the mirror of this study has come: a line from what lies in its folder, without asking anybody."""
    address, cursors = mirrored(folder)
    cursor = cursors.get(address or "", 0)
    data = (folder / FILE_NAME).read_bytes()
    if cursor > len(data):
        return f"was sent {counted(cursor - len(data), 'byte')} that the journal no longer holds; it is sent anew"
    asked = b' {"event":"asked",'  # inside of a value it would have backslashes
    runs, trials = data.count(asked, 0, cursor), data.count(asked)
    left = counted(len(data) - cursor, "byte")
    return f"{runs} of {counted(trials, 'trial')} in MLflow; to be sent: {left} of the journal"
