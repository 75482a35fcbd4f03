"""Trials one after another in this process, without Ray: for tests, debuggers and machines that have none."""

from __future__ import annotations

from sweep.orchestration.interrupts import graceful
from sweep.orchestration.search import Search
from sweep.orchestration.worker import messages


def run(search: Search) -> None:
    """Run until no further trial begins. To be called from the main thread, which alone hears of Ctrl-C.

    A trial's time limit is looked at after each epoch; an epoch that never ends, nobody ends here.
    """
    with graceful(search):
        while (assignment := search.ask()) is not None or (search.is_waiting and not search.interrupted):
            for message in messages(assignment) if assignment else ():
                if not search.hear(message) or search.overdue():
                    break
