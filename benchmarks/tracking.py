"""What MLflow costs a sweep: the CPU seconds of its mirror, beside those that the machine had while the sweep ran.

    python benchmarks/tracking.py studies/digits --server

The journal of a study that has ended is sent again, into an empty MLflow (an SQLite database, or with `--server` a
server on this machine), in the portions in which the mirror would have found it: what was journaled while it paused
goes together, its imports included. The sweep's seconds are the journal's, and those of the machine as many for each
core: the mirror is a process of its own, for which nothing waits. Exit code 1 where it takes more than 1 % of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestration import store

from sweep.orchestration.folder import StudyFolder
from sweep.tracking.journal import FILE_NAME, read
from sweep.tracking.mirror import Destination
from sweep.tracking.mlflow import Mirror

AT_ONCE = 200  # events
MOST = 0.01  # of the machine's time


def sent(events: Sequence[dict[str, Any]], destination: Destination) -> int:
    """Send the events as the mirror would have found them, pausing as it does; returns how many portions that were."""
    now, done, portions = events[0]["time"], 0, 0
    while done < len(events):
        portion = [event for event in events[done : done + AT_ONCE] if event["time"] <= now]
        began = time.monotonic()
        if portion:
            destination.send(portion)
            portions += 1
        worked = time.monotonic() - began
        done += len(portion)
        now += worked + min(max(Mirror.poll_interval, Mirror.rest * worked), Mirror.longest_wait)
    return portions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="the folder of a study that has ended")
    parser.add_argument("--server", action="store_true", help="through an MLflow server")
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="of the machine that the sweep had")
    given = parser.parse_args()
    folder = StudyFolder(given.study)
    hours = folder.ledger().hours
    with tempfile.TemporaryDirectory() as root, store(Path(root), given.server) as uri:
        copy = Path(root) / "copy"
        copy.mkdir()
        for name in (FILE_NAME, "study.json"):
            shutil.copy(given.study / name, copy / name)
        began = time.monotonic()
        destination = Mirror(copy, uri, folder.study().name)._connect()  # imports MLflow as well
        connected = time.monotonic() - began
        events = [event for event, _ in read(folder.journal)]
        portions = sent(events, destination)
        wall, used = time.monotonic() - began, time.process_time()
    print(f"{len(events)} events in {portions} portions; the sweep took {3600 * hours:.0f} s")
    print(f"mirror: {used:.1f} s of CPU, {wall:.1f} s in all ({connected:.1f} s of them to import MLflow and connect)")
    share = used / 3600 / hours / given.cores
    print(f"{share:.2%} of what {given.cores} cores had to give, {share * given.cores:.2%} of one")
    sys.exit(share > MOST)


if __name__ == "__main__":
    main()
