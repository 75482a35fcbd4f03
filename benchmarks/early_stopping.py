"""Does early stopping pay? Whole learning curves, and what ASHA makes of them when trials come in another order.

    python benchmarks/early_stopping.py --curves $SWEEP_DATA_DIR/learning_curves/real_at_curves.csv
    python benchmarks/early_stopping.py --train 24

The curves are real ones of published adversarial trainings, grouped by what was trained alike, or of the digits study's
space: `--train N` trains N configurations drawn by chance to the end. Each rule then judges them as a sweep does, with
`--workers` trials at a time, in `--orders` orders drawn by chance. Printed for each rule, over all orders: the share of
full training that it spends (epochs here, which are gradient evaluations where all trials attack alike); how far its
winner stays behind the best of all; how often that is at most one standard error of an accuracy over so many images;
and the rank correlation of each rung's values with those at the end.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import runpy
import statistics
import tempfile
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import torch
from scipy.stats import spearmanr

from sweep.objective import Goal
from sweep.orchestration.early_stopping import Rungs
from sweep.orchestration.sampler import Sampler
from sweep.provisions import Asha
from sweep.trial import Trial

METRIC = "validation/pgd_10/adversarial_accuracy"
SPACE = Path(__file__).parent.parent / "search_spaces" / "digits.py"
UNLIKE = (  # judged in an L2 ball, trained without an attack and judged without one, or on more images
    "cifar10_standard_l2/preactresnet18_0",
    "cifar10_standard/wideresnet_10",
    "cifar10_semisupervised/preactresnet18_500000",
)
Curve = Sequence[float]  # adversarial accuracy by epoch


class Group(NamedTuple):
    """Trainings that compete with each other."""

    name: str
    curves: list[Curve]
    images: int  # that an accuracy is measured on


def published(path: Path) -> list[Group]:
    """Rice et al. (2020): networks trained on CIFAR-10 for 200 epochs against Linf 8/255, judged on 10,000 images."""
    runs: dict[str, list[float]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["source"] == "robust_overfitting" and row["run"].startswith("cifar10_"):
                runs.setdefault(row["run"], []).append(float(row["test_robust_acc"] or "nan"))
    whole = {name: curve for name, curve in runs.items() if len(curve) == 200 and all(map(math.isfinite, curve))}
    alike = {name: curve for name, curve in whole.items() if name not in UNLIKE}
    narrow = [curve for name, curve in alike.items() if "wide" not in name]
    return [
        Group("CIFAR-10, Linf 8/255, PreAct ResNet-18", narrow, 10_000),
        Group("CIFAR-10, Linf 8/255, WideResNets too", list(alike.values()), 10_000),
    ]


def trained(count: int) -> Group:
    """Configurations of the digits study's space, drawn by chance and trained to the end."""
    study = runpy.run_path(str(SPACE))["STUDY"].model_copy(update={"sampler": "random", "enqueue": ()})
    curves = []
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(study, Path(folder))
        for number in range(count):
            config, _, _ = sampler.ask(number)
            curves.append([result.metrics[METRIC] for result in Trial(study.trial_config(config, number)).run()])
    return Group("digits", curves, 300)


def replayed(group: Group, rule: Asha, order: Sequence[int], workers: int) -> tuple[float, float, Rungs]:
    """One sweep: the share of full training that it spends, the winner's shortfall, and the rungs as they came out."""
    rungs = Rungs(rule, Goal(metric=METRIC))
    waiting, running = deque(order), deque[tuple[int, int]]()
    spent, best = 0, 0.0
    while waiting or running:
        while waiting and len(running) < workers:
            running.append((waiting.popleft(), 0))
        number, epoch = running.popleft()
        curve, epoch = group.curves[number], epoch + 1
        spent += 1
        so_far = max(curve[:epoch])
        goes_on, recorded = rungs.judge(number, epoch, so_far)
        rungs.record(number, recorded)
        if epoch == len(curve):
            best = max(best, so_far)
        elif goes_on:
            running.append((number, epoch))
    whole = sum(map(len, group.curves))
    return spent / whole, max(map(max, group.curves)) - best, rungs


def judge(group: Group, orders: int, workers: int) -> None:
    """Print a row for each rule, and the rungs' rank correlations."""
    length, top = len(group.curves[0]), max(map(max, group.curves))
    error = (top * (1 - top) / group.images) ** 0.5
    print(
        f"\n{group.name}: {len(group.curves)} curves of {length} epochs, the best {top:.3f}, "
        f"standard error {error:.4f}\n"
    )
    print("| grace period | one in | spent | shortfall, median | most | within one s.e. | rank correlation by rung |")
    print("|---|---|---|---|---|---|---|")
    ends = [max(curve) for curve in group.curves]
    for grace in sorted({max(length // share, 1) for share in (25, 12, 6, 3)}):
        for factor in (2, 3, 4):
            rule = Asha(grace_period=grace, reduction_factor=factor)
            shuffled = [random.Random(seed).sample(range(len(ends)), len(ends)) for seed in range(orders)]
            found = [replayed(group, rule, order, workers)[:2] for order in shuffled]
            spent, short = zip(*found, strict=True)
            hits = sum(shortfall <= error for shortfall in short) / orders
            levels = list(takewhile(lambda level: level < length, Rungs(rule, Goal(metric=METRIC)).levels()))
            ranks = [spearmanr([max(curve[:level]) for curve in group.curves], ends).statistic for level in levels]
            told = ", ".join(f"{level}: {rank:.2f}" for level, rank in zip(levels, ranks, strict=True))
            print(
                f"| {grace} | {factor} | {statistics.median(spent):.2f} | {statistics.median(short):.4f} "
                f"| {max(short):.4f} | {hits:.0%} | {told} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, help="real_at_curves.csv")
    parser.add_argument("--train", type=int, default=0, help="configurations of the digits study")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    groups = published(given.curves) if given.curves else []
    groups += [trained(given.train)] if given.train else []
    for group in groups:
        judge(group, given.orders, given.workers)


if __name__ == "__main__":
    main()
