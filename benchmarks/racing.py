"""Choosing the best of eight similar networks under AutoAttack: by an exact race, and by attacking all of them in full.

    python benchmarks/racing.py

Trains eight small CNNs on the digits, adversarially, that differ in radius, learning rate and seed; then does both on
the same validation images with the same random numbers. Exits with 1 where the winner or its verdicts differ, or where
the race took more than a third of the passes.

Passes are counted per image, forward ones (looks, queries) and backward ones; seconds are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch

from sweep.attacks.auto_attack import AutoAttack
from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.evaluation import evaluate, fraction
from sweep.models.network import Network
from sweep.racing import Contender, race
from sweep.registry import validated
from sweep.threat_models.linf import Linf
from sweep.trial import Trial

JUDGED_AT = Linf(epsilon=0.1)
CLAIMED = 1 / 3  # of the passes, at most


def trained(place: int, epochs: int) -> tuple[Network, Split]:
    """One of several like configurations, after training, and the validation images."""
    config = {
        "dataset": "digits",
        "model": {"name": "small_cnn", "width": 16},
        "threat_model": {"name": "linf", "epsilon": 0.1},
        "defense": {
            "name": "adversarial_training",
            "epsilon": 0.09 + 0.01 * (place % 4),
            "attack": {"name": "pgd", "num_steps": 3},
        },
        "epochs": epochs,
        "optimizer": {"name": "sgd", "learning_rate": 0.04 + 0.01 * (place // 4)},
        "seed": place,
    }
    trial = Trial(validated(TrialConfig, config, f"candidate {place}"))
    for _ in trial.run():
        pass
    return trial.network, trial.validation


class Meter:
    """The passes of all networks together."""

    def __init__(self, networks: list[Network]) -> None:
        self.networks, self.forward = networks, 0
        for network in networks:
            network.register_forward_hook(self._look)

    def _look(self, _network: Any, given: tuple[torch.Tensor], _logits: Any) -> None:
        self.forward += len(given[0])

    def read(self) -> tuple[float, int, int]:
        return time.process_time(), self.forward, sum(network.gradient_evaluations for network in self.networks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--images", type=int, default=300, help="of the 300 validation images")
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    candidates = [trained(place, given.epochs) for place in range(given.candidates)]
    networks = [network for network, _ in candidates]
    whole = candidates[0][1]
    split = Split(whole.images[: given.images], whole.labels[: given.images])
    meter = Meter(networks)

    start = meter.read()
    racing = [Contender(network, split, [AutoAttack()], JUDGED_AT, seed=0) for network in networks]
    (winner,) = race(racing)
    between = meter.read()
    everyone = [evaluate(network, split, [AutoAttack()], JUDGED_AT, 0).worst_case for network in networks]
    end = meter.read()
    figures = [fraction(held) for held in everyone]
    best = max(range(len(figures)), key=lambda place: (figures[place], -place))
    print(f"worst case in full: {', '.join(f'{figure:.3f}' for figure in figures)}")
    print(f"bounds in the race: {', '.join(f'{one.bound:.3f}' for one in racing)}")
    print("| | CPU seconds | forward passes | backward passes |\n|---|---|---|---|")
    for name, (before, after) in {"race": (start, between), "in full": (between, end)}.items():
        seconds, forward, backward = (b - a for a, b in zip(before, after, strict=True))
        print(f"| {name} | {seconds:.1f} | {forward:,} | {backward:,} |")
    share = (sum(between[1:]) - sum(start[1:])) / (sum(end[1:]) - sum(between[1:]))
    print(f"the race took {share:.2f} of the passes")
    same = winner == best and racing[winner].standing.equal(everyone[best])
    print(f"winner {winner}, in full {best}; verdicts {'the same' if same else 'DIFFER'}")
    return 0 if same and share <= CLAIMED else 1


if __name__ == "__main__":
    sys.exit(main())
