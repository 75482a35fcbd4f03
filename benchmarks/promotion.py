"""Stopping or promotion: which kind of ASHA finds more for the same gradient evaluations?

    python benchmarks/promotion.py --configurations 12 --seeds 0 1 2 --schedule step --kept trainings.jsonl

Configurations of the digits study's space, drawn by chance with each seed, are trained whole and, with all schedules
compressed, for the epochs of each rung; `--schedule` sets the learning rate's. A line of `--kept` holds each training,
so that an interrupted benchmark goes on. Sweeps are then replayed over them through the very rules of a sweep: without
early stopping, stopping, promoting; `--workers` trials at a time, in `--orders` orders drawn by chance, each cut off
when a share of what training all of them in whole costs is spent. Only whole trainings count. Printed: how far the
winner stays behind the best of all, how often that is at most one standard error of an accuracy on 300 images, and the
rank correlation of each rung's values with those of the whole trainings.
"""

from __future__ import annotations

import argparse
import json
import random
import runpy
import statistics
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr

from sweep.defenses.base import AttackedDefense
from sweep.errors import Diverged
from sweep.objective import Goal
from sweep.orchestration.early_stopping import Rungs
from sweep.orchestration.promotion import Promotions
from sweep.orchestration.sampler import Sampler
from sweep.provisions import Asha
from sweep.tracking.ledger import Ledger
from sweep.trial import Trial

METRIC = "validation/pgd_10/adversarial_accuracy"
SPACE = Path(__file__).parent.parent / "search_spaces" / "digits.py"
IMAGES = 300  # that an accuracy is measured on
GRACES, FACTOR = (3, 9), 3  # of 25 epochs: rungs at 3 and 9, or at 9
SHARES = (1 / 4, 1 / 3, 1 / 2)  # of what training all in whole costs
GOAL = Goal(metric=METRIC)


class Training(NamedTuple):
    """One training: what it had reached and spent (gradient evaluations) after each epoch."""

    values: list[float]
    spent: list[float]


class Configuration(NamedTuple):
    """One configuration, trained for each of these numbers of epochs; the largest is the whole."""

    by_epochs: dict[int, Training]

    @property
    def epochs(self) -> int:
        return max(self.by_epochs)

    @property
    def whole(self) -> Training:
        return self.by_epochs[self.epochs]

    @property
    def level(self) -> float:
        """What its whole training came to; one that diverged came to nothing."""
        return max(self.whole.values) if len(self.whole.values) == self.epochs else 0.0


def configurations(seed: int, count: int, schedule: str, kept: Path) -> Iterator[Configuration]:
    """Drawn by chance and trained, as far as `kept` does not hold their trainings yet."""
    study = runpy.run_path(str(SPACE))["STUDY"]
    study = study.model_copy(update={"sampler": "random", "enqueue": (), "seed": seed})
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    found = {
        (one["number"], one["epochs"]): Training(one["values"], one["spent"])
        for one in known
        if (one["pool"], one["seed"]) == (schedule, seed)
    }
    with tempfile.TemporaryDirectory() as folder:
        sampler = Sampler(study, Path(folder))
        for number in range(count):
            config = sampler.ask(number)[0]
            if schedule != "default":
                config |= {"learning_rate_schedule": {"name": schedule}}
            lengths = {step for grace in GRACES for step in _rule("promotion", grace).ladder(config["epochs"])}
            trainings: dict[int, Training] = {}
            for epochs in sorted(lengths, reverse=True):
                if trainings and _is_unscheduled(study.trial_config(config, number)):
                    whole = trainings[config["epochs"]]
                    trainings[epochs] = Training(whole.values[:epochs], whole.spent[:epochs])
                elif (number, epochs) in found:
                    trainings[epochs] = found[number, epochs]
                else:
                    trainings[epochs] = _trained(study.trial_config(config | {"epochs": epochs}, number))
                    names = {"pool": schedule, "seed": seed, "number": number, "epochs": epochs}
                    with kept.open("a") as file:
                        file.write(json.dumps(names | trainings[epochs]._asdict()) + "\n")
            yield Configuration(trainings)


def _is_unscheduled(config: Any) -> bool:
    """Whether nothing in it moves with progress: a shorter training is then the whole one's first epochs."""
    schedules = [config.learning_rate_schedule]
    schedules += [config.defense.epsilon_schedule] if isinstance(config.defense, AttackedDefense) else []
    return all(schedule.name == "constant" for schedule in schedules)


def _trained(config: Any) -> Training:
    training = Training([], [])
    try:
        for result in Trial(config).run():
            training.values.append(result.metrics[METRIC])
            training.spent.append(result.metrics["gradient_evaluations"])
    except Diverged:
        pass  # it ends here
    return training


def _rule(kind: Any, grace: int) -> Asha:
    return Asha(kind=kind, grace_period=grace, reduction_factor=FACTOR)


class Sweep:
    """A sweep replayed over what is known, up to so many gradient evaluations."""

    def __init__(self, known: Sequence[Configuration], rule: Asha | None, order: Sequence[int], workers: int) -> None:
        self.known, self.workers = known, workers
        self.ledger = Ledger()
        self.rungs = rule and (
            Promotions(rule, GOAL, ledger=self.ledger) if rule.kind == "promotion" else Rungs(rule, GOAL)
        )
        self.best = self.spent = 0.0
        self._order = deque(order)
        self._of: dict[int, int] = {}  # by the trial's number, the configuration that it trains
        self._running = deque[int]()

    def run(self, budget: float) -> float:
        """The level of the winner."""
        while self._begin():
            number = self._running.popleft()
            trial, training = self.ledger.trials[number], self._training(number)
            epoch = trial.epoch + 1
            if epoch > len(training.values):
                continue  # it diverged
            self.spent += training.spent[epoch - 1] - (training.spent[epoch - 2] if epoch > 1 else 0.0)
            if self.spent > budget:
                break
            metrics = {METRIC: training.values[epoch - 1]}
            decision, recorded = self.rungs.verdict(trial, epoch, metrics) if self.rungs else ("continue", {})
            self._tell("reported", number, epoch=epoch, metrics=metrics)
            if self.rungs:
                self.rungs.record(number, recorded)
            if epoch < trial.config["epochs"] and decision == "continue":
                self._running.append(number)
            elif decision == "continue":
                self.best = max(self.best, *training.values)
        return self.best

    def _begin(self) -> bool:
        """Fill the workers' places; whether anything runs."""
        while len(self._running) < self.workers:
            number, promotion = len(self.ledger.trials), self.rungs.promotion(None) if self.rungs else None
            if promotion:
                fields, self._of[number] = promotion.asked, self._of[promotion.trial.number]
            elif self._order:
                self._of[number] = self._order.popleft()
                config = {"epochs": self.known[self._of[number]].epochs}
                fields = self.rungs.proposed(config) if self.rungs else {"config": config}
            else:
                break
            self._tell("asked", number, **{"params": {}, "origin": "sampler", **fields})
            self._running.append(number)
        return bool(self._running)

    def _training(self, number: int) -> Training:
        return self.known[self._of[number]].by_epochs[self.ledger.trials[number].config["epochs"]]

    def _tell(self, event: str, number: int, **fields: Any) -> None:
        self.ledger.apply({"event": event, "time": 0.0, "trial": number, **fields})


def judge(known: Sequence[Configuration], orders: int, workers: int) -> None:
    """Print the rungs' rank correlations, and a row for each rule and budget."""
    levels = [one.level for one in known]
    top, whole = max(levels), sum(one.whole.spent[-1] for one in known if one.whole.spent)
    error = (top * (1 - top) / IMAGES) ** 0.5
    print(f"{len(known)} configurations, the best {top:.3f}, standard error {error:.3f}")
    for epochs in sorted(known[0].by_epochs)[:-1]:
        stopped = [max([0.0, *one.whole.values[:epochs]]) for one in known]
        compressed = [max([0.0, *one.by_epochs[epochs].values]) for one in known]
        ranks = [spearmanr(values, levels).statistic for values in (stopped, compressed)]
        print(f"rank correlation with the end at {epochs} epochs: {ranks[0]:.2f}, compressed {ranks[1]:.2f}")
    shuffled = [random.Random(seed).sample(range(len(known)), len(known)) for seed in range(orders)]
    print("\n| spent, at most | rule | first rung | shortfall, median | mean | within one s.e. |")
    print("|---|---|---|---|---|---|")
    rules = [("none", None), *((kind, _rule(kind, grace)) for grace in GRACES for kind in ("stopping", "promotion"))]
    for share in SHARES:
        for name, rule in rules:
            short = [top - Sweep(known, rule, order, workers).run(share * whole) for order in shuffled]
            hits = sum(one <= error for one in short) / orders
            first = rule.grace_period if rule else ""
            median, mean = statistics.median(short), statistics.mean(short)
            print(f"| {share:.2f} | {name} | {first} | {median:.3f} | {mean:.3f} | {hits:.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=12, help="of each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--schedule", default="step", help="the learning rate's; default: as the space has it")
    parser.add_argument("--kept", type=Path, required=True, help="where the trainings are kept")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    count, schedule = given.configurations, given.schedule
    known = [one for seed in given.seeds for one in configurations(seed, count, schedule, given.kept)]
    judge(known, given.orders, given.workers)


if __name__ == "__main__":
    main()
