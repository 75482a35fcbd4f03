"""What a process may use and has used: device, threads, peak memory; and whether another one is there."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

import torch

from sweep.errors import ConfigurationError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_RESET_PEAK = "5"  # proc(5), clear_refs: resets the peak resident set size


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device", ["'cuda' was asked for, and torch finds no GPU here; use 'auto' or 'cpu'"])
    return torch.device(name)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself. A CPU that does not is some thirty times slower in it."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def keep_freed_memory() -> None:
    """Let the C library (glibc) hand freed memory out again before it gives any back to the kernel.

    A training step frees and takes the same megabytes over and over, and the kernel zeroes each page that it lends
    anew. `benchmarks/training_step.py` says what that is of a step.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # as far as glibc allows
        library.mallopt(_TRIM_THRESHOLD, 2**30)


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new peak, so that a process that runs many trials reports each one's own, and holds no earlier one's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # which others that share the GPU may need
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the last trial freed
    with contextlib.suppress(OSError):  # a system without /proc reports the process's peak instead
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def peak_memory(device: torch.device) -> float:
    """Peak megabytes since the reset: of the GPU on CUDA, else of the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def is_alive(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
