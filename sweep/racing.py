"""The best of several networks under a strong attack, without attacking all of them in full, and with no guess in it.

What an attack has not broken yet is a network's upper bound, and it only falls. So the network of the highest bound is
the one to attack next, whoever that is; once a network at the top has nothing left to be attacked with, no other can
reach it. The winners and their verdicts are those of attacking everything (the search is A*, Hart et al. 1968, on
bounds that never underestimate); the losers are left with bounds that say why they lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from sweep.attacks import Attack
from sweep.attacks.base import misclassified, wrong
from sweep.datasets import Split
from sweep.evaluation import BATCH, adversary_of, predict
from sweep.models.network import Network, crafting
from sweep.threat_models import ThreatModel


class Contender:
    """One network in a race: what still stands [N] of a split, and whether it has been attacked in full."""

    def __init__(
        self,
        network: Network,
        split: Split,
        attacks: Sequence[Attack],
        threat_model: ThreatModel,
        seed: int,
        batch: int = BATCH,
    ) -> None:
        self.network, self.split, self.threat_model, self.seed, self.batch = network, split, threat_model, seed, batch
        with crafting(network, "eval"):
            self.standing = ~wrong(predict(network, split), split.labels)
        self.clean = self.standing.clone()
        self.is_finished = False
        self._turns = self._attacked(attacks)

    @property
    def bound(self) -> float:
        """What it can still reach: its worst-case accuracy once it is finished."""
        return self.standing.double().mean().item()

    def advance(self) -> None:
        """One attack, or one part of one, on one batch."""
        with crafting(self.network, "eval"):
            self.is_finished = next(self._turns, None) is None

    def _attacked(self, attacks: Sequence[Attack]) -> Iterator[Tensor]:
        """The rows that each turn looked at. Every batch has been through one part before any sees the next: the parts
        that break most for least come first."""
        for attack in attacks:
            stages = [(rows, self._stages(attack, start, rows)) for start, rows in self._batches()]
            for _ in attack.labels:
                for rows, stage in stages:
                    _, points = next(stage)
                    self.standing[rows] &= ~misclassified(self.network, points, self.split.labels[rows])
                    yield rows

    def _batches(self) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(self.split), self.batch):
            rows = start + self.clean[start : start + self.batch].nonzero().squeeze(1)
            if len(rows):
                yield start, rows

    def _stages(self, attack: Attack, start: int, rows: Tensor) -> Iterator[tuple[str, Tensor]]:
        images = self.split.pixels(rows)
        adversary = adversary_of(self.threat_model, self.threat_model.epsilon, self.seed, attack, start, images.device)
        return attack.stages(self.network, images, self.split.labels[rows], adversary)


def race(contenders: Sequence[Contender], winners: int = 1) -> list[int]:
    """The places of the best `winners` contenders, best first (of equals the earlier one), each attacked in full."""
    finished: list[int] = []
    while len(finished) < min(winners, len(contenders)):
        racing = [place for place in range(len(contenders)) if place not in finished]
        first = max(racing, key=lambda place: (contenders[place].bound, -place))
        if contenders[first].is_finished:
            finished.append(first)
        else:
            contenders[first].advance()
    return finished
