"""A folder in a store, for machines that share no disk: s3://, gs://, or file:// where all mount one file system.

A URI is as pyarrow.fs reads it: `s3://bucket/path?region=eu-west-1`, or `...?endpoint_override=http://host:port` for an
S3 that is not Amazon's. Credentials come from where its libraries look for them, on each machine by itself, and never
stand in a URI, which is written down in journals and commands.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from sweep.checkpoint import discard, write_bytes
from sweep.errors import DiskFullError, StorageAwayError, StorageError

SCHEMES = ("s3", "gs", "file")
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds between two tries at a store that is away
_FORM = "write s3://bucket/path, gs://bucket/path, or file:///folder for a file system that every machine mounts"
_CREDENTIALS = (
    "credentials are read, on every machine by itself, from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws or the "
    "machine's role; of Google's from GOOGLE_APPLICATION_CREDENTIALS or the machine's account"
)
# By what stands in the message of pyarrow, which has one class of error for all: what no waiting mends.
_REFUSALS = {
    r"NO_SUCH_BUCKET|bucket does not exist": "there is no such bucket: make it, or mend the URI",
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|(EXPIRED|INVALID)_TOKEN|"
    r"MISSING_AUTHENTICATION_TOKEN|PermissionDenied|Unauthenticated": f"access is denied; {_CREDENTIALS}",
    r"PERMANENT_REDIRECT|MOVED_PERMANENTLY": "the bucket is in another region: name that in the URI (?region=...)",
}


class Storage:
    """The folder at `uri`; it need not be there. Raises StorageError for a URI of no use.

    Whatever is done raises StorageAwayError where the store does not answer, and StorageError where it refuses.
    A file is there whole or not at all, whoever is killed while writing it.
    """

    def __init__(self, uri: str) -> None:
        refuse_unusable(uri)
        path, mark, options = uri.partition("?")
        self.uri = path.rstrip("/") + mark + options
        if path.startswith("s3:"):  # small files in one request instead of three
            options = f"{options}&allow_delayed_open=true".lstrip("&")
        with self._explained():
            self._files, where = fs.FileSystem.from_uri(path.rstrip("/") + (f"?{options}" if options else ""))
        self._path = where.rstrip("/")
        self._is_local = self._files.type_name == "local"

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> Storage:
        there = copy(self)
        there.uri, there._path = below(self.uri, name), f"{self._path}/{name}"
        return there

    @property
    def name(self) -> str:
        return str(self._path).rpartition("/")[2]

    @property
    def parent(self) -> Storage:
        path, mark, options = self.uri.partition("?")
        above = copy(self)
        above.uri, above._path = path.rpartition("/")[0] + mark + options, self._path.rpartition("/")[0]
        return above

    def check(self) -> None:
        """Write, list, read and delete something. Raises StorageError where any of that fails."""
        name, content = f"check-{uuid4().hex}", b"sweep"
        try:
            self.write(name, content)
            if name not in self.files() or self.read(name) != content:
                raise StorageError(f"{self}: what was written is not there when it is read again")
            self.delete(name)
        except StorageAwayError as error:
            raise StorageError(str(error)) from error

    def files(self) -> dict[str, int]:
        """The size in bytes of each file below, by its path from here."""
        return {info.path[len(self._path) + 1 :]: info.size for info in self._below() if info.is_file}

    def folders(self) -> list[str]:
        """The names of the folders here."""
        return sorted(info.base_name for info in self._below(recursive=False) if not info.is_file)

    def read(self, name: str) -> bytes | None:
        """What a file holds; None where it is absent."""
        with self._explained(), suppress(FileNotFoundError):
            while True:
                with self._files.open_input_file(self._at(name)) as file:
                    content = bytes(file.read())
                # pyarrow asks for the size first: of a file that was replaced by a longer one, this is a part.
                if self._is_local or self._files.get_file_info(self._at(name)).size == len(content):
                    return content
        return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in place of the one that is there."""
        with self._explained():
            if self._is_local:
                return write_bytes(Path(self._at(name)), content)
            # In one piece: an exception of ours between two pieces would close the file, and half of it were there.
            with self._files.open_output_stream(self._at(name)) as file:
                file.write(content)
        return None

    def delete(self, name: str) -> None:
        """Delete a file; one that is absent is as good."""
        with self._explained(), suppress(FileNotFoundError):
            if self._is_local:
                return discard(Path(self._at(name)))
            self._files.delete_file(self._at(name))
        return None

    def fetch(self, folder: Path, without: tuple[str, ...] = ()) -> list[str]:
        """Bring every file below to `folder`, except those of these names; says which came."""
        names = [name for name in self.files() if name not in without]
        for name in names:
            if (content := self.read(name)) is not None:
                write_bytes(folder / name, content)
        return names

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _below(self, *, recursive: bool = True) -> list[Any]:
        with self._explained():
            return [
                info
                for info in self._files.get_file_info(
                    fs.FileSelector(self._path, allow_not_found=True, recursive=recursive)
                )
                if not info.base_name.startswith(".")  # what is being written on a file system
            ]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """pyarrow's errors as sentences; FileNotFoundError passes."""
        try:
            yield
        except FileNotFoundError:
            raise
        except pa.ArrowInvalid as error:
            raise StorageError(f"{self}: {_first_line(error)}; {_FORM}") from error
        except (OSError, pa.ArrowException, DiskFullError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> StorageError:
        text = _first_line(error)
        if refusal := next((words for mark, words in _REFUSALS.items() if re.search(mark, text)), None):
            return StorageError(f"{self}: {refusal}")
        if isinstance(error, DiskFullError):
            return StorageError(text)
        if self._is_local and isinstance(error, PermissionError):
            return StorageError(
                f"{self} cannot be written by this user ({error.strerror}): give it away, or mend the URI"
            )
        return StorageAwayError(f"{self} does not answer ({text})")


def patiently(action: Callable[[], None]) -> Iterator[str]:
    """Do something with a store until it succeeds; where the store is away, say so, once, and wait.

    To be exhausted. Raises StorageError where the store refuses.
    """
    wait, is_told = FIRST_WAIT, False
    while True:
        try:
            return action()
        except StorageAwayError as error:
            if not is_told:
                yield str(error)
            is_told = True
            time.sleep(wait * random.uniform(0.5, 1.0))  # not all workers at once
            wait = min(2 * wait, LONGEST_WAIT)


def is_uri(text: str) -> bool:
    """Whether this is meant as a URI, rather than as a name or a path."""
    return "://" in text


def below(uri: str, name: str) -> str:
    """The URI of something in the folder at `uri`."""
    path, mark, options = uri.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def refuse_unusable(uri: str) -> None:
    """Raise StorageError for what is no store's URI, or holds credentials. Asks nobody."""
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES or not (parts.netloc or parts.path.strip("/")):
        raise StorageError(f"{uri!r} is no store: {_FORM}")
    if "@" in parts.netloc:
        shown = uri.replace(parts.netloc, "***@" + parts.netloc.rpartition("@")[2])
        raise StorageError(
            f"{shown} holds credentials, and a URI is kept in plain sight: leave them out; {_CREDENTIALS}"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return re.sub(r" \(Request ID: \S+\)", "", lines[0]) if lines else type(error).__name__
