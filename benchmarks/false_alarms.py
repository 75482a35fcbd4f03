"""How often the validity checks doubt a network that is genuine.

    python -m benchmarks.false_alarms --images 100

Published networks under several radii and judges, and small networks trained here on digits, are asked every check of
the full level (V10, V11, Square's 1,000 queries and 500 random points among them). Needs the published weights and data
(SWEEP_DATA_DIR). Exits with 1 where one is suspect: then a threshold is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.evaluation import evaluate, fraction
from sweep.registry import validated
from sweep.trial import Trial
from sweep.validity import Subject, Validity, examine
from sweep.validity.base import in_order
from tests.contracts.test_published_models import ADVERTORCH, CROWN, Published, cifar10, mnist, network

PGD_10, PGD_40 = {"name": "pgd", "num_steps": 10}, {"name": "pgd", "num_steps": 40}
ROBUST, STANDARD = ADVERTORCH
PUBLISHED: list[tuple[Published, float, dict[str, Any]]] = [
    (ROBUST, 0.3, PGD_10),
    (ROBUST, 0.3, PGD_40),
    (ROBUST, 0.1, PGD_10),
    (STANDARD, 0.3, PGD_10),
    (STANDARD, 0.1, PGD_10),
    *((published, radius / 255, PGD_10) for published in CROWN for radius in (2, 4, 8)),
]
AGAINST = {"name": "adversarial_training", "epsilon": 0.1}
TRAINED: dict[str, dict[str, Any]] = {
    "standard": {"name": "standard"},
    "adversarial_training, PGD-5": AGAINST | {"attack": {"name": "pgd", "num_steps": 5}},
    "adversarial_training, FGSM": AGAINST | {"attack": {"name": "fgsm", "random_start": True}},
    "adversarial_training, radius 0.03": AGAINST | {"epsilon": 0.03},
    "trades": {"name": "trades", "epsilon": 0.1, "beta": 6.0},
    "hybrid": {"name": "hybrid", "epsilon": 0.1},
    "gradient_regularization": {"name": "gradient_regularization", "penalty": 0.1},
    "feature_squeezing, 2 bits": {"name": "feature_squeezing", "bit_depth": 2},
}


@dataclass(frozen=True)
class Genuine:
    """A network that is what it seems, with what was found about it."""

    name: str
    judge: str
    robust: float
    validity: Validity
    seconds: float


def published_networks(images: int) -> Iterator[Genuine]:
    for published, radius, judge in PUBLISHED:
        on_mnist = published in ADVERTORCH
        settings = {
            "dataset": "mnist" if on_mnist else "cifar10",
            "model": "lenet5" if on_mnist else "resnet18",  # its figures are compared with those of its kind (V24)
            "threat_model": {"name": "linf", "epsilon": radius},
            "defense": "standard" if published is STANDARD else AGAINST | {"epsilon": radius},
            "validation_attacks": [judge],
            "objective": [{"metric": f"validation/pgd_{judge['num_steps']}/adversarial_accuracy"}],
            "epochs": 1,
            "validity": "full",
        }
        config = validated(TrialConfig, settings, published.file)
        split, start = (mnist if on_mnist else cifar10)(images), time.process_time()
        found = network(published)
        verdicts = evaluate(found, split, config.validation_attacks, config.threat_model, config.seed)
        validity = examine(Subject(config, found, split, verdicts))
        (robust,) = verdicts.robust.values()
        name, label = f"{published.file}, linf {radius:.3g}", f"pgd_{judge['num_steps']}"
        yield Genuine(name, label, fraction(robust), validity, time.process_time() - start)


def trained_networks(images: int) -> Iterator[Genuine]:
    for name, defense in TRAINED.items():
        settings = {
            "dataset": "digits",
            "model": {"name": "small_cnn", "width": 16},
            "threat_model": {"name": "linf", "epsilon": 0.1},
            "defense": defense,
            "optimizer": {"name": "sgd", "learning_rate": 0.05},
            "epochs": 15,
            "validity": "full",
        }
        trial = Trial(validated(TrialConfig, settings, name))
        list(trial.run())
        start = time.process_time()
        split = Split(trial.validation.images[:images], trial.validation.labels[:images])
        config = trial.config
        verdicts = evaluate(trial.network, split, config.validation_attacks, config.threat_model, config.seed)
        last = trial.results[-1].epoch
        validity = examine(Subject(config, trial.network, split, verdicts, trial.results, last))
        (robust,) = verdicts.robust.values()
        yield Genuine(f"digits, {name}", "pgd_10", fraction(robust), validity, time.process_time() - start)


def row(one: Genuine) -> str:
    doubts = [
        f"{id} ({one.validity.figures[id]:.3f})" + (" suspect" if id in one.validity.suspect else "")
        for id in (*one.validity.suspect, *one.validity.investigate)
    ]
    return f"| {one.name} | {one.judge} | {one.robust:.3f} | {', '.join(doubts) or 'none'} | {one.seconds:.0f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="that each is examined on, from the beginning")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | judge | accuracy under it | doubts | CPU seconds |\n|---|---|---|---|---|")
    everyone = []
    for examined in (published_networks, trained_networks):
        for one in examined(given.images):
            print(row(one), flush=True)
            everyone.append(one)
    print("\n| check | largest figure | investigate above | suspect above |\n|---|---|---|---|")
    for check in in_order():
        if figures := [one.validity.figures[check.id] for one in everyone if check.id in one.validity.figures]:
            print(f"| {check.id} {check.title} | {max(figures):.4g} | {check.investigate} | {check.suspect} |")
    suspect = sum(bool(one.validity.suspect) for one in everyone)
    doubted = sum(bool(one.validity.investigate) for one in everyone)
    print(f"\n{len(everyone)} examinations: {suspect} suspect, {doubted} to be investigated")
    return int(suspect > 0)


if __name__ == "__main__":
    sys.exit(main())
