from __future__ import annotations

import pytest
import torch
from torch import nn

from sweep.attacks.auto_attack_lite import AutoAttackLite
from sweep.attacks.pgd import PGD
from sweep.datasets import Split
from sweep.datasets.digits import Digits
from sweep.evaluation import evaluate
from sweep.models.network import Network
from sweep.racing import Contender, race
from sweep.threat_models.linf import Linf

BALL = Linf(epsilon=0.06)
ATTACKS = (PGD(num_steps=3), AutoAttackLite(num_steps=5))


@pytest.fixture(scope="module")
def split() -> Split:
    validation = Digits().load().validation
    return Split(validation.images[:120], validation.labels[:120])


@pytest.fixture(scope="module")
def networks() -> list[Network]:
    """Five linear classifiers, trained the longer the later: each is a little better than the one before."""
    train = Digits().load().train
    found = []
    for place in range(5):
        torch.manual_seed(place)
        network = Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (0.3,), (0.38,))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(4 + 12 * place):
            optimizer.zero_grad()
            noise = 0.2 * torch.rand(train.images.shape) - 0.1
            nn.functional.cross_entropy(network(train.pixels(slice(None)) + noise), train.labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found.append(network)
    return found


def contenders(networks: list[Network], split: Split, batch: int = 500) -> list[Contender]:
    return [Contender(network, split, ATTACKS, BALL, seed=3, batch=batch) for network in networks]


def full(networks: list[Network], split: Split, batch: int) -> list[Contender]:
    """Everyone attacked to the end."""
    everyone = contenders(networks, split, batch)
    for one in everyone:
        while not one.is_finished:
            one.advance()
    return everyone


@pytest.mark.parametrize("winners", [1, 2])
def test_winners_and_their_verdicts_are_those_of_attacking_everyone(
    networks: list[Network], split: Split, winners: int
) -> None:
    everyone = full(networks, split, batch=40)
    ranking = sorted(range(5), key=lambda place: (-everyone[place].bound, place))
    racing = contenders(networks, split, batch=40)
    assert race(racing, winners) == ranking[:winners]
    for place in ranking[:winners]:
        assert racing[place].standing.equal(everyone[place].standing)


def test_a_race_attacks_less_than_everyone(networks: list[Network], split: Split) -> None:
    def cost() -> int:
        return sum(network.gradient_evaluations for network in networks)

    before = cost()
    full(networks, split, batch=40)
    between = cost()
    racing = contenders(networks, split, batch=40)
    race(racing)
    assert cost() - between < 0.8 * (between - before)
    assert not all(one.is_finished for one in racing)


def test_a_bound_is_never_below_what_is_reached(networks: list[Network], split: Split) -> None:
    everyone, racing = full(networks, split, batch=40), contenders(networks, split, batch=40)
    race(racing)
    assert all(raced.bound >= finished.bound for raced, finished in zip(racing, everyone, strict=True))


def test_verdicts_are_those_of_an_evaluation(networks: list[Network], split: Split) -> None:
    (one,) = full(networks[:1], split, batch=500)
    assert one.standing.equal(evaluate(networks[0], split, ATTACKS, BALL, 3).worst_case)


def test_of_equals_the_earlier_wins(networks: list[Network], split: Split) -> None:
    assert race(contenders([networks[2], networks[2], networks[2]], split), 2) == [0, 1]


def test_more_winners_than_contenders_are_all_of_them(networks: list[Network], split: Split) -> None:
    assert sorted(race(contenders(networks[:2], split), 9)) == [0, 1]
