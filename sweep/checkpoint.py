"""Atomic files: a reader sees the old content or the new, whatever kills the writer.

Tensors are read with `weights_only=True` or safetensors and nothing else: a checkpoint is data, never code.
torch's reader does not look at the checksums that its writer leaves in the file, so `load` does.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sweep import disk
from sweep.errors import CheckpointError
from sweep.resources import is_alive


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, bring it to the disk, and put it in `path`'s place. Raises DiskFullError."""
    with disk.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_temporary(path))
        os.close(descriptor)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(0o644)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def folder_atomically(path: Path, *, over: bool = True) -> Iterator[Path]:
    """A new folder beside `path`, which takes its place, whole, when the block is over; where not `over`, refused once
    there is something in it.

    Ended before, `path` is as it was. Killed in the moment between two renames, the old folder and the new one, both
    whole, are beside it, their names begin with a dot, and the next writer that succeeds on the same machine removes
    them. Raises DiskFullError, or CheckpointError where nothing can be written there.
    """
    with disk.explained(path):
        beside = f"{_temporary(path)}folder-{socket.gethostname()}-"
        new, old = (_empty_folder(path, f"{beside}{os.getpid()}-") for _ in range(2))
        try:
            yield new
            new.chmod(0o755)
            for written in (*new.rglob("*"), new):
                _sync(written)
            if path.exists() and over:
                path.replace(old)
            elif path.exists() and any(path.iterdir()):
                raise CheckpointError(f"{path} was written meanwhile by somebody else, and stays as it is")
            new.replace(path)
            _sync(path.parent)
            for left in path.parent.glob(f"{beside}*"):
                if not is_alive(int(left.name.removeprefix(beside).split("-")[0])):
                    shutil.rmtree(left, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            if path.exists() or not any(old.iterdir()):
                shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers and text."""
    content = io.BytesIO()  # torch, writing to a file, has no word for a full disk
    torch.save(dict(state), content)
    write_bytes(path, content.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU. Raises CheckpointError where the file is absent, damaged, or not data alone."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint at {path}") from None
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be opened: {error.strerror}") from None
    try:
        with file:
            if (part := zipfile.ZipFile(file).testzip()) is not None:
                raise ValueError(f"its part {part} does not match its checksum")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damage breaks torch's reader anywhere: IndexError, TypeError, OSError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a checkpoint that can be read ({reason})") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a checkpoint")
    return state


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a network's parameters and buffers as safetensors, with a few words about them."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_bytes(path, safetensors.torch.save(whole, dict(metadata) if metadata else None))


def load_weights(path: Path) -> dict[str, Tensor]:
    """What `save_weights` wrote."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict


def load_metadata(path: Path) -> dict[str, str]:
    """The words about the weights that `save_weights` wrote with them."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


def digest(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits. Raises CheckpointError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, for as long as the block lasts. Raises CheckpointError."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"there are no weights at {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file that can be read ({error})") from None


def discard(path: Path) -> None:
    """Delete a file that `write_atomically` wrote, and what writers that were killed left beside it."""
    path.unlink(missing_ok=True)
    tidy(path)


def tidy(path: Path) -> None:
    """Delete what writers of the file that were killed left beside it. Nobody may be writing it now."""
    for left in path.parent.glob(f"{_temporary(path)}*"):
        left.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a file or folder, so that its name is free and nothing is lost; where it is now."""
    names = (path.with_name(f"{path.name}.set-aside-{number}") for number in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


def _empty_folder(path: Path, prefix: str) -> Path:
    """A new folder beside `path`. Raises CheckpointError where there can be none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
    except OSError as error:
        if disk.is_full(error):
            raise
        raise CheckpointError(f"{path} cannot be written: {error.strerror}") from None


def _temporary(path: Path) -> str:
    return f".{path.name}."


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
