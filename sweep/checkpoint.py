"""Atomic files: a reader sees the old content or the new, whatever kills the writer.

Tensors are read with `weights_only=True` or safetensors and nothing else: a checkpoint is data, never code.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sweep.errors import CheckpointError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, bring it to the disk, and put it in `path`'s place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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


def write_text(path: Path, text: str) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text(text)

    write_atomically(path, write)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers and text."""
    write_atomically(path, lambda temporary: torch.save(dict(state), temporary))


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
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damage breaks torch's reader anywhere: IndexError, TypeError, OSError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint that can be read ({reason}); delete it to start anew"
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a checkpoint; delete it to start anew")
    return state


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a network's parameters and buffers as safetensors."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_atomically(path, lambda temporary: safetensors.torch.save_file(whole, temporary))


def load_weights(path: Path) -> dict[str, Tensor]:
    """What `save_weights` wrote."""
    try:
        return dict(safetensors.torch.load_file(path))
    except FileNotFoundError:
        raise CheckpointError(f"there are no weights at {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file that can be read ({error})") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
