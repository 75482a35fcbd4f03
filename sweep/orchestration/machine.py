"""What a machine finds out about itself, for `sweep doctor`: here, or on a node of a cluster. Plain data."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from socket import gethostname
from typing import Any
from uuid import uuid4

import torch

from sweep import disk
from sweep.datasets import NamedDataset
from sweep.datasets.base import data_directory
from sweep.datasets.cache import cache_directory
from sweep.errors import StorageError, SweepError
from sweep.orchestration.provenance import versions
from sweep.orchestration.storage import Storage, is_uri
from sweep.registry import Record, validated

Found = tuple[str, str | None]  # what there is; a remedy where that is wrong
ONE_PLACE = "mount one file system there on every machine, or name another folder with --studies"
ONE_STORE = "let every machine reach one store, each with credentials of its own (docs/cluster.md says where from)"
_MARK = "driver"


class Data(Record):
    """A dataset as it travels to a node: its configuration."""

    dataset: NamedDataset


def look(mark: str, dataset: dict[str, Any] | None) -> dict[str, Any]:
    """This machine's versions and GPUs, and by check what was found.

    `mark` is one of `marked`; `dataset` is a configuration, None where no data are asked for.
    """
    if is_uri(mark):
        checks = {"storage": _store(mark), "disk": _disk()}
    else:
        checks = {"storage": _storage(Path(mark)), "disk": _disk(Path(mark).parent)}
    if dataset is not None:
        checks["data"] = _data(dataset)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"versions": versions() | {"robust-sweep": _installed()}, "gpus": gpus, "checks": checks}


@contextmanager
def marked(studies: Path | str) -> Iterator[str]:
    """A folder of this machine's among the studies, or in the store at that URI, for others to find and to write to;
    gone in the end."""
    if isinstance(studies, str):
        mark = Storage(studies) / f"doctor-{uuid4().hex}"
        mark.write(_MARK, gethostname().encode())
        try:
            yield mark.uri
        finally:
            mark.delete(_MARK)
        return
    is_new = not studies.exists()
    studies.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=studies.resolve()) as folder:
            Path(folder).chmod(0o777)  # a node's user may be another one
            (Path(folder) / _MARK).write_text(gethostname())
            yield folder
    finally:
        if is_new:
            studies.rmdir()


def _storage(mark: Path) -> Found:
    """Whether the studies' folder is the one that the driver sees, and can be written and locked."""
    try:
        origin = (mark / _MARK).read_text()
        with (mark / f"{gethostname()}-{uuid4().hex}").open("w") as file:
            file.write("written")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return f"{mark.parent} is not the folder that the driver writes to", ONE_PLACE
    except OSError as error:
        return f"{mark.parent} cannot be written and locked ({error.strerror})", ONE_PLACE
    return f"{mark.parent}, which {origin} writes to, can be written here", None


def _store(uri: str) -> Found:
    """Whether the store is the one that the driver writes to, and can be listed, read and written."""
    try:
        mark = Storage(uri)
        origin = mark.read(_MARK)
        mark.check()
    except StorageError as error:
        return str(error), ONE_STORE
    if origin is None:
        return f"{mark.parent} is not the store that the driver writes to", ONE_STORE
    return f"{mark.parent}, which {origin.decode()} writes to, can be written here", None


def _disk(*studies: Path) -> Found:
    """Whether there is room for the studies, for decoded data, and for Ray and the trials at work."""
    places = (*studies, cache_directory(), Path(tempfile.gettempdir()))
    for place in places:
        if shortage := disk.shortage(place):
            found, _, remedy = shortage.rpartition("; ")
            return found, remedy
    return ", ".join(f"{disk.free(place) / 2**30:,.0f} GB free for {place}" for place in places), None


def _data(config: dict[str, Any]) -> Found:
    """Whether the dataset can be loaded, which also decodes it for the trials to come."""
    try:
        splits = validated(Data, {"dataset": config}, "dataset").dataset.load()
    except (SweepError, OSError) as error:
        return str(error), f"its files belong under {data_directory()} there (SWEEP_DATA_DIR names another folder)"
    return f"{config['name']}: {len(splits.train):,} training and {len(splits.validation):,} validation images", None


def _installed() -> str:
    try:
        return version("robust-sweep")
    except PackageNotFoundError:
        return "sent there"
