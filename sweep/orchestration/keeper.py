"""A study's copy in a store, kept abreast of its folder by a thread, for as long as somebody owns the study.

What goes there: the journal, study.json, and where MLflow is. The journal grows, and a file in a store does not: it
lies there in pieces, each named after the bytes before it, and the last of which is written anew until it is large.

The folder's journal is the one that is acted on, and the store's follows within a second. No trial begins before the
store knows of it, and no checkpoint is deleted there before the end of its trial is known there. Where the driver's
machine is lost, the store may lack what trials said in the last moment, which their checkpoints hold: those are there
first.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweep.checkpoint import write_bytes
from sweep.errors import StorageError, StudyError
from sweep.orchestration.lease import BEAT, Lease
from sweep.orchestration.storage import FIRST_WAIT, LONGEST_WAIT, Storage
from sweep.tracking.journal import FILE_NAME as JOURNAL

STUDY = "study.json"
MIRROR = "mirror.json"  # where MLflow is, and what it was sent
PIECE = 2**18  # bytes of a piece of the journal, after which the next one begins
GROWTH_EVERY = 1.0  # seconds between two looks for what is new
DRAIN = 60.0  # seconds that the end waits for a store that is away
_FOLDER = "journal"


class RemoteJournal:
    """The journal of the study in `storage`."""

    def __init__(self, storage: Storage) -> None:
        self._folder = storage / _FOLDER
        self._start = 0  # where the last piece begins
        self.size = 0

    def read(self) -> bytes:
        """All of it. Raises StudyError where a piece is missing."""
        content = b""
        for name in sorted(self._folder.files()):
            if int(name.partition(".")[0]) != len(content):
                raise StudyError(f"{self._folder}: a piece before {name} is missing; restore it from a copy")
            self._start = len(content)
            content += self._folder.read(name) or b""
        self.size = len(content)
        return content

    def clear(self) -> None:
        for name in self._folder.files():
            self._folder.delete(name)
        self._start = self.size = 0

    def send(self, journal: Path) -> None:
        """Write what this file has more, up to its last whole line."""
        if not journal.exists() or journal.stat().st_size <= self.size:
            return
        with journal.open("rb") as file:
            file.seek(self._start)
            piece = file.read()
        piece = piece[: piece.rfind(b"\n") + 1]
        self._folder.write(f"{self._start:015d}.log", piece)
        self.size = self._start + len(piece)
        if len(piece) >= PIECE:
            self._start = self.size


class Keeper:
    """The thread. `lost` is a sentence where another machine owns the study now: nothing is written there any more."""

    def __init__(
        self, path: Path, storage: Storage, lease: Lease, journal: RemoteJournal, say: Callable[[str], None]
    ) -> None:
        self.lost: str | None = None
        self.away: str | None = None  # why the store lacks something, while it does not answer
        self._path, self._storage, self._lease, self._journal, self._say = path, storage, lease, journal, say
        self._sent: dict[str, bytes] = {}
        self._awaited = 0  # bytes of the journal
        self._ended: deque[tuple[str, int]] = deque()
        self._beaten, self._deadline = time.monotonic(), math.inf
        self._wake, self._closing = threading.Event(), threading.Event()
        self._turned = threading.Condition()
        self._thread = threading.Thread(target=self._follow, name="storage", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, for a while where the store is away, and say what it lacks then."""
        self._deadline = time.monotonic() + DRAIN
        self._closing.set()
        self._wake.set()
        self._thread.join()
        if not self.lost and not self._is_abreast():
            self._say(f"{self._storage} lacks the end of the journal ({self.away}); the next command here sends it")

    def abreast(self, seconds: float) -> bool:
        """Whether the store holds what the journal did when this was first asked, after waiting for it so long."""
        self._awaited = self._awaited or self._size()  # what comes meanwhile shall not put it off for ever
        self._wake.set()
        with self._turned:
            is_there = self._turned.wait_for(lambda: self._journal.size >= self._awaited, seconds)
        if is_there:
            self._awaited = 0
        return is_there

    def discard(self, name: str) -> None:
        """Delete a file in the store, when it holds all that the journal does now."""
        self._ended.append((name, self._size()))

    def _is_abreast(self) -> bool:
        return self._journal.size >= self._size()

    def _size(self) -> int:
        path = self._path / JOURNAL
        return path.stat().st_size if path.exists() else 0

    def _follow(self) -> None:
        wait = FIRST_WAIT
        while self.lost is None:
            is_last = self._closing.is_set()  # asked first: what was journaled before the end is then surely seen
            try:
                self._turn(is_last)
                if self.away:
                    self._say(f"{self._storage} answers again")
                self.away, wait = None, FIRST_WAIT
            except (StorageError, OSError) as error:
                if not self.away:
                    self._say(f"{error}; no trial begins until it does, and nothing that was done is lost")
                self.away, wait = str(error), min(2 * wait, LONGEST_WAIT)
            with self._turned:
                self._turned.notify_all()
            if is_last and (not self.away or time.monotonic() > self._deadline):
                return
            self._wake.wait(wait if self.away else GROWTH_EVERY)
            if not self._closing.is_set():
                self._wake.clear()
            elif self.away:
                time.sleep(FIRST_WAIT)

    def _turn(self, is_last: bool) -> None:
        if is_beat := time.monotonic() - self._beaten >= BEAT:
            if owner := self._lease.renew():
                self.lost = f"{self._storage} was taken over by {owner}, which goes on with the study; this one stops"
                return
            self._beaten = time.monotonic()
        if (self._path / STUDY).exists():  # until then the journal of a new study may yet be begun anew
            self._journal.send(self._path / JOURNAL)
            for name in (STUDY, MIRROR) if is_beat or is_last else ():
                self._send(name)
            self._discard()

    def _send(self, name: str) -> None:
        with suppress(FileNotFoundError):
            content = (self._path / name).read_bytes()
            if self._sent.get(name) != content:
                self._storage.write(name, content)
                self._sent[name] = content

    def _discard(self) -> None:
        due = []
        while self._ended and self._ended[0][1] <= self._journal.size:
            due.append(self._ended.popleft()[0])
        if len(due) > 1:  # all that ended, when a study is opened again: most were deleted long ago
            there = self._storage.files()
            due = [name for name in due if name in there]
        for name in due:
            self._storage.delete(name)


@contextmanager
def kept(path: Path, storage: Storage, say: Callable[[str], None]) -> Iterator[tuple[Keeper, str | None]]:
    """Own the study in `storage`, whose folder here is `path` and has what the store has; with the owner before, where
    that is gone."""
    lease = Lease(storage)
    before = lease.take()
    try:
        keeper = Keeper(path, storage, lease, catch_up(path, storage, is_owner=True), say)
        keeper.start()
        try:
            yield keeper, before
        finally:
            keeper.stop()
    finally:
        with suppress(StorageError):
            lease.give_back()


def catch_up(path: Path, storage: Storage, *, is_owner: bool = False) -> RemoteJournal:
    """Bring here what the store has more of a study. Raises StudyError where the two went apart.

    Of a study that was never begun, as its beginner was killed, the store may hold a journal: its next owner clears it.
    """
    remote, study, local = RemoteJournal(storage), storage.read(STUDY), path / JOURNAL
    if study is None:
        if is_owner:
            remote.clear()
        return remote
    there, here = remote.read(), local.read_bytes() if local.exists() else b""
    if not there.startswith(here[: here.rfind(b"\n") + 1]) and not here.startswith(there):
        raise StudyError(
            f"{path} and {storage} went apart: another machine went on with the study where this one had not sent its "
            f"last events. The store's is the one that counts: move {path} away, and the study is brought here anew"
        )
    if len(there) > len(here):
        write_bytes(local, there)
    write_bytes(path / STUDY, study)
    if not (path / MIRROR).exists() and (mirrored := storage.read(MIRROR)) and _names_a_server(mirrored):
        write_bytes(path / MIRROR, mirrored)
    return remote


def _names_a_server(mirrored: bytes) -> bool:
    """Whether MLflow is where this machine finds it too, and no file of the machine that wrote this."""
    try:
        address = str(json.loads(mirrored)["address"])
    except (ValueError, KeyError, TypeError):
        return False
    return "://" in address and not address.startswith("sqlite")
