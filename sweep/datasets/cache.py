"""Images are decoded once a machine: the first trial writes them as arrays, every trial maps those files.

    $SWEEP_CACHE_DIR/mnist-train-<key>/     default ~/.cache/sweep/decoded; may be deleted whenever nothing runs
        images.npy    uint8 [N, C, H, W]
        labels.npy    int64 [N]
        entry.json    written last: what was decoded, from which files; an entry without it does not exist
        lock          held while the entry is opened or written, so that concurrent first uses decode once

The files are memory-mapped, so the operating system's page cache holds one copy of a dataset for all the trials of a
machine, however many processes they are. That shapes how splits are made. Indexing a mapped array with a random
permutation would copy it into every process; so the *shuffled order is what is stored*, and each split is a contiguous
slice of it: a view. The seed of the order is therefore part of the key, while the sizes of the splits are not.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from sweep import disk
from sweep.errors import DataError, DiskFullError
from sweep.seeding import generator

_FORMAT = 1  # part of every key: raise it when decoding or storing changes what the files hold

Image = NDArray[np.uint8]  # [C, H, W]


@dataclass(frozen=True)
class Decoded:
    """What a dataset decodes: `len(labels)` images of one shape, in the labels' order, made while they are written."""

    images: Iterable[Image]
    labels: NDArray[np.int64]
    classes: int


@dataclass(frozen=True)
class Stored:
    """Images uint8 [N, C, H, W] and labels int64 [N], both backed by the cache's files."""

    images: Tensor
    labels: Tensor
    classes: int


_opened: dict[Path, Stored] = {}  # of this process


def cache_directory() -> Path:
    return Path(os.environ.get("SWEEP_CACHE_DIR") or "~/.cache/sweep/decoded").expanduser().resolve()


def decoded_once(
    name: str, parameters: Mapping[str, Any], sources: Sequence[Path], order: int | None, decode: Callable[[], Decoded]
) -> Stored:
    """The entry for these parameters and source files, decoded if no process of this machine has done so.

    `order` is the seed of the stored order; None keeps the order of the source. A changed source file (its name, size
    or modification time) is another entry. Raises DataError where the cache cannot be written.
    """
    description = {
        "format": _FORMAT,
        "parameters": dict(parameters),
        "order": order,
        "sources": [_stamp(path) for path in sources],
    }
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    entry = cache_directory() / f"{name}-{key[:32]}"
    if entry not in _opened:
        with locked(entry / "lock"), _explained(entry.parent):
            _opened[entry] = _read(entry) or _write(entry, description, decode(), order)
    return _opened[entry]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, waiting for it. It ends with the process that holds it, even if that is killed."""
    with _explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    remedy = "set SWEEP_CACHE_DIR to another folder"
    try:
        with disk.explained(folder):
            yield
    except DiskFullError as error:
        raise DiskFullError(f"{error} ({remedy}, where that disk has more)") from error
    except OSError as error:
        raise DataError(f"cannot keep decoded images in {folder}: {error}; {remedy}") from error


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _read(entry: Path) -> Stored | None:
    """The stored arrays, mapped; None where there are none, or where they are damaged and must be decoded again."""
    try:
        description = json.loads((entry / "entry.json").read_text())
        images, labels = _map(entry / "images.npy"), _map(entry / "labels.npy")
        if list(images.shape) != description["shape"] or len(labels) != len(images):
            return None
        return Stored(torch.from_numpy(images), torch.from_numpy(labels), int(description["classes"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _map(path: Path) -> NDArray[Any]:
    # Copy-on-write: pages stay shared until written to. A read-only map would make torch warn that its tensors, which
    # know no such thing, could be written to; here a stray write is possible, and reaches neither file nor neighbour.
    return npy.open_memmap(path, mode="c")


def _write(entry: Path, description: dict[str, Any], decoded: Decoded, order: int | None) -> Stored:
    count = len(decoded.labels)
    places = np.arange(count) if order is None else _permutation(count, order)
    labels = np.empty(count, dtype=np.int64)
    labels[places] = decoded.labels
    with _replacing(entry / "images.npy") as file:
        shape = _write_images(file, decoded.images, places)
    with _replacing(entry / "labels.npy") as file:
        np.save(file, labels)
    with _replacing(entry / "entry.json") as file:
        file.write(json.dumps({**description, "shape": shape, "classes": decoded.classes}, indent=1).encode())
    stored = _read(entry)
    if stored is None:
        raise DataError(
            f"the decoded images in {entry} were damaged while they were written; see that the disk is sound"
        )
    return stored


def _permutation(count: int, seed: int) -> NDArray[np.int64]:
    return torch.randperm(count, generator=generator(seed, "dataset", "order")).numpy()


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when it is whole and on the disk. What a killed process left is overwritten."""
    partial = path.with_suffix(path.suffix + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_images(file: IO[bytes], images: Iterable[Image], places: NDArray[np.int64]) -> list[int]:
    """Write each image at its place in the shuffled order, holding one in memory. Returns [N, C, H, W]."""
    shape: list[int] = []
    start = 0
    for place, image in zip(places, images, strict=True):
        if not shape:
            shape = [len(places), *image.shape]
            npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
            start = file.tell()
        if [len(places), *image.shape] != shape or image.dtype != np.uint8:
            raise ValueError(f"images must all be uint8 {shape[1:]}, got {image.dtype} {list(image.shape)}")
        file.seek(start + int(place) * image.size)
        file.write(image.tobytes())
    return shape
