"""Trials one after another in this process, without Ray: for tests, debuggers and machines that have none."""

from __future__ import annotations

from sweep.orchestration.search import Search
from sweep.orchestration.worker import messages


def run(search: Search) -> None:
    """Run until no further trial begins. To be called from the main thread, which alone hears of Ctrl-C."""
    with search.graceful():
        while (assignment := search.ask()) is not None:
            for position, message in enumerate(messages(assignment)):
                if position == 0:
                    search.started(assignment.number, message["node"], message["pid"])
                if not search.hear(message):
                    break
