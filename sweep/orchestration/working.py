"""A trial's folder where a store keeps it: a copy on the machine that runs the trial, for as long as it does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweep.orchestration.storage import Storage, patiently
from sweep.resources import is_alive
from sweep.trial import METRICS

_PREFIX = "sweep-trial-"


class WorkingCopy:
    """The folder at `folder`, and its like in a store at `uri`. Nothing is done before `bring`.

    Raises StorageError where the store refuses; where it is away, that is said, and waited for.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        self.folder = folder
        self._uri = uri
        self._known: dict[str, tuple[int, int]] = {}  # by path from the folder's parent: time of change, size

    def bring(self) -> Iterator[str]:
        """Have the folder as the store has it; to be exhausted: a sentence where that takes a while."""
        yield from patiently(self._bring)

    def send(self) -> Iterator[str]:
        """Have the store hold what the folder does; to be exhausted, like `bring`."""
        yield from patiently(self._send)

    def _bring(self) -> None:
        self._there = Storage(self._uri)
        self._there.fetch(self.folder)
        self._known = self._found()

    def _send(self) -> None:
        """New files and changed ones; then those that are gone here, as one that was set aside, go there."""
        found, above = self._found(), self._there.parent
        for name in sorted(found.keys(), key=lambda name: name.endswith(METRICS)):  # whoever finds that finds all
            if self._known.get(name) != found[name]:
                above.write(name, (self.folder.parent / name).read_bytes())
                self._known[name] = found[name]
        for name in self._known.keys() - found.keys():
            above.delete(name)
            del self._known[name]

    def _found(self) -> dict[str, tuple[int, int]]:
        """The files here, also of a folder beside, where the whole of this one was set aside."""
        root = self.folder.parent
        files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


@contextmanager
def working_copy(uri: str) -> Iterator[WorkingCopy]:
    """A copy in the system's temporary folder (TMPDIR), gone when the block is over. What processes that were killed
    left there goes as well."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(ValueError):
            if not is_alive(int(left.name.removeprefix(_PREFIX).split("-")[0])):
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as root:
        name = uri.partition("?")[0].rstrip("/").rpartition("/")[2]
        yield WorkingCopy(uri, Path(root) / name)
