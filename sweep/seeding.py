"""Randomness is passed in: every stream is derived from (seed, purpose) and never taken from a global generator.

Because a stream's purpose includes the epoch where one matters, no generator state needs to be saved: a trial resumed
at an epoch boundary draws the very numbers that it would have drawn had it run through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, unrelated to that of any other purpose (SHA-256 of both)."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` for one purpose."""
    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))


@contextmanager
def layer_randomness(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's global stream inside the block and give it back unchanged.

    Layers take no generator (parameter initialisation, dropout, stochastic depth draw from the global stream), so this
    is the one place where the global stream is touched.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        number = derive(seed, *purpose)
        torch.default_generator.manual_seed(number)  # torch.manual_seed asks every kind of device, 27 times as long
        if devices:
            torch.cuda.manual_seed(number)
        yield
