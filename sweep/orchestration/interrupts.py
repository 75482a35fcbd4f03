"""Ctrl-C, once and twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGTERM, signal
from typing import Any

from sweep.orchestration.search import Search


@contextmanager
def graceful(search: Search) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) lets running trials finish their epoch and save; the second ends at once."""

    def stop(number: int, frame: Any) -> None:
        if search.interrupted:
            raise KeyboardInterrupt
        search.interrupted = True
        search.say("running trials finish their epoch and save; Ctrl-C again ends at once")

    before = {number: signal(number, stop) for number in (SIGINT, SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal(number, handler)
