"""The journal of a study: append-only, on disk before anyone acts on it, the one truth.

One line an event, in UTF-8: the CRC-32 of the JSON text as eight hexadecimal digits, a space, compact JSON, a newline.

    a44f11f2 {"event":"ended","time":1765432100.25,"trial":7,"end":"completed"}

A process that dies while writing leaves at most one torn line, the last one, which never counted and is cut off when
the journal is next opened. Anything else that does not match its checksum is damage, and is refused, not skipped.
A journal has one writer; any number of readers may follow it meanwhile.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweep.errors import JournalError, counted

FILE_NAME = "journal.log"  # in the study folder

_REMEDY = "restore the file from a copy, or delete this line and all after it: the sweep goes on from what is left"


class Journal:
    """The writing end of the journal at `path`, which is created if it is absent.

    `cut` says how many bytes of a torn last line were cut off on opening, or is None.
    Raises JournalError if the file cannot be opened, or is damaged before its last line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut: str | None = None
        is_new = not path.exists()
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise JournalError(f"{path}: the journal cannot be opened ({error.strerror})") from error
        if is_new:
            _sync_folder(path.parent)
        self._end = self._cut_torn_line()

    def append(self, event: str, **fields: Any) -> dict[str, Any]:
        """Write one event, with its name and the time in seconds since 1970, and return it as it will be read.

        When this returns, the event is on disk. Raises JournalError if it is not (a full disk, a value that is NaN or
        infinite, another writer); the journal is then as it was before.
        """
        line = _encode({"event": event, "time": time.time(), **fields})
        self._write(line)
        written: dict[str, Any] = json.loads(line[9:])
        return written

    def close(self) -> None:
        """Give the file back. Closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, line: bytes) -> None:
        status = os.fstat(self._descriptor)
        if not status.st_nlink:
            raise JournalError(f"{self.path}: was deleted while this process wrote to it; restore it from a copy")
        if (size := status.st_size) != self._end:
            reason = (
                "another process writes to it, or a failed write could not be undone: stop the other one and resume"
            )
            raise JournalError(
                f"{self.path}: holds {counted(size, 'byte')} where this process left {self._end}; {reason}"
            )
        try:
            if os.write(self._descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._end += len(line)  # a Ctrl-C comes while the disk is waited for, and the line is there
            os.fsync(self._descriptor)
        except OSError as error:
            self._end = size
            with suppress(OSError):  # if even this fails, the next opening cuts the half line off
                os.ftruncate(self._descriptor, size)
            remedy = "free some space, then resume the sweep"
            raise JournalError(f"{self.path}: the event could not be written ({error.strerror}); {remedy}") from error

    def _cut_torn_line(self) -> int:
        """Cut off a torn last line; returns the journal's size in bytes."""
        size = os.fstat(self._descriptor).st_size
        end = self._end_of_last_event(size)
        if end < size:
            os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)
            self.cut = f"{self.path}: cut off {counted(size - end, 'byte')} of a last line that was never written whole"
        return end

    def _end_of_last_event(self, size: int) -> int:
        if size == 0:  # which cannot be mapped
            return 0
        with mmap.mmap(self._descriptor, size, access=mmap.ACCESS_READ) as data:
            last = data.rfind(b"\n", 0, size - 1) + 1
            if _decode(data[last:]) is not None:
                return size
            # A torn write damages one line. Were the line before it damaged too and nobody looked, cutting this one
            # would make that one the last, and the next opening would cut it as well.
            previous = data.rfind(b"\n", 0, max(last - 1, 0)) + 1
            if last and _decode(data[previous:last]) is None:
                raise _damaged(self.path, previous)
        return last


def read(path: Path, *, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The events from byte `offset` on (0, or one that this function gave), each with the offset of the byte after it.

    A torn last line ends the reading quietly: its writer died, or is writing it now. Raises JournalError, naming the
    line, for any other line that is not an event with its checksum.
    """
    if not path.exists():
        raise JournalError(f"{path}: there is no journal here; was anything run in this folder?")
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline():
            event = _decode(line)
            if event is None:
                if not line.endswith(b"\n") or not file.read(1):
                    return
                raise _damaged(path, offset)
            offset += len(line)
            yield event, offset


def _encode(event: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        place = f"'{key}' is not a finite number" if (key := _non_finite(event)) else str(error)
        raise JournalError(f"event '{event['event']}': {place}, and the journal holds finite numbers only") from error
    # Half a surrogate pair, which a file name in an error's message may hold, is not text in UTF-8 and becomes "?".
    data = text.encode("utf-8", errors="replace")
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _decode(line: bytes) -> dict[str, Any] | None:
    """The event of a whole line, newline included, or None if the line is torn or damaged."""
    data = line[9:-1]
    if line[:9] != b"%08x " % zlib.crc32(data) or line[-1:] != b"\n":
        return None
    try:
        event = json.loads(data)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _non_finite(value: Any, key: str = "") -> str | None:
    """The dotted key of the first NaN or infinite number in `value`."""
    if isinstance(value, float):
        return None if math.isfinite(value) else key
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    found = (_non_finite(item, f"{key}.{name}" if key else str(name)) for name, item in items)
    return next((place for place in found if place is not None), None)


def _damaged(path: Path, offset: int) -> JournalError:
    with path.open("rb") as file:
        number = file.read(offset).count(b"\n") + 1
    return JournalError(f"{path}, line {number}: does not match its checksum, so the file was damaged; {_REMEDY}")


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut: its folder is written to disk as well."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
