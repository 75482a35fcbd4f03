"""One copy of a dataset for all the trials of a machine: what each more process that reads all of it adds.

    python benchmarks/memory.py --data cifar10 --workers 1 2 4

Workers are processes of their own, as trials are. They begin together with an empty cache, so that the images are
decoded before their eyes, read every training image, and say what of the cache's file they hold: resident (Rss), and
their share of it where several map it (Pss). `decoded` counts the images decoded, by all of them together. Exit code 1
where that is more than once each, or where so many workers hold more than one copy and a tenth between them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sweep.datasets import cache
from sweep.registry import build

MOST_COPIES = 1.1  # of the images, in all workers together


def worker(data: str) -> None:
    """Say the seconds that opening took, then what is resident: each a line, each once a line was heard."""
    write, dataset = cache._write, build("dataset", data)
    decoded: list[int] = []

    def counted(*given: object) -> object:
        stored = write(*given)  # type: ignore[arg-type]  # passed on as it came
        decoded.append(len(stored.labels))
        return stored

    cache._write = counted  # type: ignore[assignment]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    splits = dataset.load()
    seconds = time.monotonic() - began
    assert int(splits.train.images.sum()) + int(splits.validation.images.sum()) > 0
    print(seconds, sum(decoded), flush=True)
    sys.stdin.readline()
    mapped = Path("/proc/self/smaps").read_text().split("images.npy")[1:]
    held = [sum(float(re.findall(rf"^{kind}: +(\d+) kB", part, re.M)[0]) for part in mapped) for kind in ("Rss", "Pss")]
    print(*held, flush=True)
    sys.stdin.readline()


def measured(data: str, count: int) -> tuple[int, float, list[float], list[float]]:
    """Images decoded; the longest opening in seconds; megabytes resident, and shared out, of each worker."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"SWEEP_CACHE_DIR": folder}
        command = [sys.executable, __file__, "--data", data, "--worker"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        workers = [subprocess.Popen(command, text=True, env=environment, **pipes) for _ in range(count)]  # type: ignore[call-overload]
        try:
            heard(workers)
            opened = heard(workers, go=True)
            held = heard(workers, go=True)
        finally:
            for process in workers:
                process.communicate("\n", timeout=60)
    resident, shares = zip(*held, strict=True)
    kilo = 1000.0
    return (
        int(sum(images for _, images in opened)),
        max(seconds for seconds, _ in opened),
        [each / kilo for each in resident],
        [each / kilo for each in shares],
    )


def heard(workers: Sequence[subprocess.Popen[str]], go: bool = False) -> list[list[float]]:
    """Let all go on, then the numbers in a line of each."""
    for process in workers:
        if go and process.stdin:
            process.stdin.write("\n")
            process.stdin.flush()
    lines = [process.stdout.readline() for process in workers if process.stdout]
    return [[float(word) for word in line.split() if word != "ready"] for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="a dataset by its name")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.data)
        return
    print("| workers | images decoded | seconds until all have opened | MB resident in each | MB held by all |")
    print("|---|---|---|---|---|")
    once, failed = 0, False
    for count in given.workers:
        decoded, seconds, resident, shares = measured(given.data, count)
        once = once or decoded
        failed |= decoded != once or sum(shares) > MOST_COPIES * max(resident)
        print(f"| {count} | {decoded:,} | {seconds:.1f} | {max(resident):.1f} | {sum(shares):.1f} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
