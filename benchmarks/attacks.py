"""What each part of AutoAttack costs on published models, beside the same parts run in full on every image.

    python -m benchmarks.attacks --images 500

Needs the published weights and data (SWEEP_DATA_DIR). Seconds are CPU seconds of one thread, so a busy machine changes
them little; passes are counted per image. Both ways use the same random numbers. Exits with 1 where their verdicts
differ, or where PGD with 10 restarts leaves fewer standing than AutoAttack.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sweep.attacks import Adversary, misclassified
from sweep.attacks.auto_attack import AutoAttack
from sweep.attacks.auto_attack_lite import AutoAttackLite
from sweep.attacks.pgd import PGD
from sweep.models.network import Network, crafting
from sweep.threat_models import ThreatModel
from sweep.threat_models.linf import Linf
from tests.contracts.test_published_models import ADVERTORCH, CROWN, Published, cifar10, mnist, network

LITE = tuple(AutoAttackLite().parts)
IN_THE_BALL = ("apgd_ce", "apgd_t")  # every point they look at lies in it, and a success anywhere counts


@dataclass
class Meter:
    """Counts what a network is asked, per image; where `watched`, also which images any look at it broke."""

    network: Network
    labels: Tensor
    forward: int = 0
    broken: Tensor = field(init=False)
    watched: bool = False

    def __post_init__(self) -> None:
        self.broken = torch.zeros_like(self.labels, dtype=torch.bool)
        self.network.register_forward_hook(self._look)

    def _look(self, _module: Any, given: tuple[Tensor], logits: Tensor) -> None:
        self.forward += len(given[0])
        if self.watched:
            self.broken |= logits.detach().argmax(1) != self.labels

    def cost(self, work: Callable[[], Tensor]) -> tuple[Tensor, Cost]:
        before = (time.process_time(), self.forward, self.network.gradient_evaluations)
        result = work()
        after = (time.process_time(), self.forward, self.network.gradient_evaluations)
        return result, Cost(*(b - a for a, b in zip(before, after, strict=True)))


@dataclass(frozen=True)
class Cost:
    seconds: float = 0.0
    forward: float = 0
    backward: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.forward + other.forward, self.backward + other.backward)


@dataclass(frozen=True)
class Subject:
    """A published network and the images that it classifies correctly, of `total`."""

    name: str
    network: Network
    images: Tensor
    labels: Tensor
    total: int
    ball: ThreatModel
    meter: Meter

    @property
    def adversary(self) -> Adversary:
        return Adversary(self.ball, self.ball.epsilon, torch.Generator().manual_seed(0))

    def standing(self, points: Tensor) -> Tensor:
        return ~misclassified(self.network, points, self.labels)


def subject(published: Published, count: int) -> Subject:
    ball, split = (Linf(epsilon=0.3), mnist(count)) if published in ADVERTORCH else (Linf(epsilon=2 / 255), cifar10())
    images, labels, model = split.pixels(slice(0, count)), split.labels[:count], network(published)
    with crafting(model, "eval"):
        right = ~misclassified(model, images, labels)
    meter = Meter(model, labels[right])
    return Subject(published.file, model, images[right], labels[right], len(images), ball, meter)


def cascade(on: Subject) -> tuple[dict[str, Cost], dict[str, Tensor]]:
    """Each part on what is left standing, as evaluation runs it."""
    attack = AutoAttack()
    costs, verdicts = {}, {}
    stages = attack.stages(on.network, on.images, on.labels, on.adversary)
    for name in attack.parts:
        points, costs[name] = on.meter.cost(lambda: next(stages)[1])
        verdicts[name] = on.standing(points)
    return costs, verdicts


def in_full(on: Subject) -> tuple[dict[str, Cost], dict[str, Tensor]]:
    """Each part on every image, going on with what it has broken already."""
    attack = AutoAttack()
    costs, verdicts = {}, {}
    for name, (part, own) in zip(attack.parts, attack.streams(on.adversary), strict=True):
        on.meter.broken.zero_()
        on.meter.watched = name in IN_THE_BALL
        points, costs[name] = on.meter.cost(lambda: part.perturb(on.network, on.images, on.labels, own))  # noqa: B023
        on.meter.watched = False
        verdicts[name] = on.standing(points) & ~on.meter.broken
    return costs, verdicts


def report(on: Subject) -> bool:
    """Print the table; whether all is as claimed."""
    costs, verdicts = cascade(on)
    full_costs, full_verdicts = in_full(on)
    restarts = PGD(num_steps=40, num_restarts=10)
    points, pgd_cost = on.meter.cost(
        lambda: restarts.perturb(on.network, on.images, on.labels, on.adversary, until_broken=True)
    )
    worst, full_worst = verdicts["square"], torch.stack(list(full_verdicts.values())).all(0)
    right = f"{on.total} images, {len(on.labels)} of them right"
    print(f"\n### {on.name}, {on.ball.name} {on.ball.epsilon:.4g}, {right}\n")
    print("| attack | standing after it | seconds | forward | backward | in full: seconds | forward | backward |")
    print("|---|---|---|---|---|---|---|---|")
    for name, cost in costs.items():
        row(on, name, verdicts[name], cost, full_costs[name])
    row(on, "auto_attack_lite", verdicts["apgd_t"], total(costs, LITE), total(full_costs, LITE))
    row(on, "auto_attack", worst, total(costs, costs), total(full_costs, costs))
    row(on, restarts.label, on.standing(points), pgd_cost, None)
    same, more = int((worst == full_worst).sum()), int(verdicts["apgd_t"].sum() - worst.sum())
    share = total(costs, LITE).seconds / max(total(costs, costs).seconds, 1e-9)
    print(f"\nVerdicts as in full on {same} of {len(worst)}. Lite leaves {more} more, at {share:.2f} of the seconds.")
    return same == len(worst) and worst.sum() <= on.standing(points).sum()


def total(costs: dict[str, Cost], names: Any) -> Cost:
    return sum((costs[name] for name in names), Cost())


def row(on: Subject, name: str, standing: Tensor, cost: Cost, full: Cost | None) -> None:
    cells = [f"{int(standing.sum())} ({standing.sum().item() / on.total:.1%})"]
    for each in (cost, full):
        cells += [f"{each.seconds:.1f}", f"{each.forward:,}", f"{each.backward:,}"] if each else ["", "", ""]
    print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="of the test split, from its beginning")
    parser.add_argument("--models", nargs="*", default=[], help="parts of their file names; all, if none is given")
    given = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [p for p in (*ADVERTORCH, *CROWN) if not given.models or any(part in p.file for part in given.models)]
    subjects = [subject(published, given.images) for published in chosen]
    held = []
    for on in subjects:
        with crafting(on.network, "eval"):
            held.append(report(on))
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
