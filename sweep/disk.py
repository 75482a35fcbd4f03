"""Room on a disk: how much there is, and a full one as a sentence that says what to do."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sweep.errors import DiskFullError

LEAST = 64 * 2**20  # bytes below which nothing new begins: a large network's checkpoint would not fit
REMEDY = "make some room, then `sweep resume` goes on: nothing that was written is lost"


def free(path: Path) -> int:
    """Bytes that may still be written to the disk that holds `path`, or will hold it."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def shortage(path: Path) -> str | None:
    """A sentence where the disk of `path` has too little room for anything to begin, else None."""
    room = free(path)
    if room >= LEAST:
        return None
    return f"{path}: {_megabytes(room)} are free on its disk, and nothing begins below {_megabytes(LEAST)}; {REMEDY}"


def is_full(error: BaseException) -> bool:
    """Whether this is what a write to a full disk (or quota) raises."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """A full disk (or quota), met while `path` is written, as a DiskFullError."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise DiskFullError(f"{path}: its disk is full ({_megabytes(free(path))} free); {REMEDY}") from error


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"
