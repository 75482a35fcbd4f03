"""The best of several networks under a strong attack, without attacking all of them in full, and with no guess in it.

What an attack has not broken yet is a network's upper bound, and it only falls. So the network of the highest bound is
the one to attack next, whoever that is; once a network at the top has nothing left to be attacked with, no other can
reach it. The winners and their verdicts are those of attacking everything (the search is A*, Hart et al. 1968, on
bounds that never underestimate); the losers are left with bounds that say why they lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from sweep.attacks import Adversary, Attack
from sweep.attacks.base import ask, margin, wrong
from sweep.datasets import Split
from sweep.evaluation import BATCH, adversary_of, predict
from sweep.models.network import Network, crafting
from sweep.threat_models import ThreatModel

SHARES = (8, 4, 2, 1)  # one in so many of what is left is attacked next, the most nearly broken first; at last all


class Contender:
    """One network in a race: what still stands [N] of a split, and whether it has been attacked in full.

    An attack's verdict on an example depends on no other example (its draws are made for the whole batch, needed or
    not), so it is made on some of them at a time. Between turns it holds no pixels but the split's own bytes.
    """

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
        logits = predict(network, split)
        self.clean = ~wrong(logits, split.labels)
        self.standing = self.clean.clone()
        self.is_finished = False
        self._classes = logits.shape[1]
        self._margins = margin(logits, split.labels)  # the highest met: from 0 on an example is broken
        self._turns = self._attacked(attacks)

    @property
    def bound(self) -> float:
        """What it can still reach: its worst-case accuracy once it is finished."""
        return self.standing.double().mean().item()

    def advance(self) -> None:
        """One attack, or one part of one, on some examples of one batch."""
        with crafting(self.network, "eval"):
            self.is_finished = next(self._turns, None) is None

    def _attacked(self, attacks: Sequence[Attack]) -> Iterator[int]:
        """The turns, each as the number of examples that it attacked. The first part of all, which breaks most for
        least, sees every example; the others then see the most nearly broken ones before they see the rest."""
        (first, *others), left = list(self._parts(attacks)), self.standing.clone()
        for start in range(0, len(self.split), self.batch):
            if attacked := self._attack(first, start, left):
                yield attacked
        for share in SHARES:
            for start in range(0, len(self.split), self.batch):
                chosen = self._nearest(start, left & self.standing, share)
                for part in others:
                    if attacked := self._attack(part, start, chosen):
                        yield attacked
                left &= ~chosen

    def _parts(self, attacks: Sequence[Attack]) -> Iterator[tuple[Attack, int]]:
        """Every attack, as often as it has parts, with the part's place."""
        for attack in attacks:
            yield from ((attack, place) for place, _ in enumerate(attack.streams(self._adversary(attack, 0))))

    def _attack(self, part: tuple[Attack, int], start: int, chosen: Tensor) -> int:
        """Attack those chosen of the batch at `start` that still stand; says how many these are."""
        attack, place = part
        rows = start + self.clean[start : start + self.batch].nonzero().squeeze(1)  # the batch as it is evaluated
        active = (chosen & self.standing)[rows]
        if not active.any():
            return 0
        images, labels = self.split.pixels(rows), self.split.labels[rows]
        # An attack leaves alone what is misclassified as it stands, as the others are for another class than theirs.
        goals = torch.where(active, labels, (labels + 1) % self._classes)
        piece, adversary = next(islice(attack.streams(self._adversary(attack, start)), place, None))
        points = piece.perturb(self.network, images, goals, adversary, until_broken=True)
        reached, broken = ask(self.network, points[active], labels[active], margin)
        rows = rows[active]
        self.standing[rows] = ~broken
        self._margins[rows] = torch.maximum(self._margins[rows], reached.nan_to_num(torch.inf))
        return len(rows)

    def _nearest(self, start: int, left: Tensor, share: int) -> Tensor:
        """[N] booleans: of the batch's examples that are left, one in `share`, those nearest to being broken."""
        rows = start + left[start : start + self.batch].nonzero().squeeze(1)
        nearest = rows[self._margins[rows].argsort(descending=True, stable=True)]
        chosen = torch.zeros_like(left)
        chosen[nearest[: -(-len(rows) // share)]] = True
        return chosen

    def _adversary(self, attack: Attack, start: int) -> Adversary:
        device = self.split.labels.device
        return adversary_of(self.threat_model, self.threat_model.epsilon, self.seed, attack, start, device)


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
