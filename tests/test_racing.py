from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

from sweep.attacks.auto_attack_lite import AutoAttackLite
from sweep.attacks.carlini_l2 import CarliniL2
from sweep.attacks.fab_t import FABT
from sweep.attacks.fgsm import FGSM
from sweep.attacks.pgd import PGD
from sweep.datasets import Split
from sweep.datasets.digits import Digits
from sweep.evaluation import evaluate
from sweep.models.network import Network
from sweep.racing import Contender, race
from sweep.threat_models.l2 import L2
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


@pytest.fixture(scope="module")
def everyone(networks: list[Network], split: Split) -> list[Contender]:
    return full(networks, split, batch=40)


@pytest.mark.parametrize("winners", [1, 2])
def test_winners_and_their_verdicts_are_those_of_attacking_everyone(
    everyone: list[Contender], networks: list[Network], split: Split, winners: int
) -> None:
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


def test_a_bound_is_never_below_what_is_reached(
    everyone: list[Contender], networks: list[Network], split: Split
) -> None:
    racing = contenders(networks, split, batch=40)
    race(racing)
    assert all(raced.bound >= finished.bound for raced, finished in zip(racing, everyone, strict=True))


def test_verdicts_are_those_of_an_evaluation(networks: list[Network], split: Split) -> None:
    (one,) = full(networks[:1], split, batch=500)
    assert one.standing.equal(evaluate(networks[0], split, ATTACKS, BALL, 3).worst_case)


def test_between_turns_no_pixels_are_held(networks: list[Network], split: Split) -> None:
    def images() -> int:
        held = (thing for thing in gc.get_objects() if type(thing) is Tensor)
        return sum(tensor.dim() == 4 and tensor.is_floating_point() for tensor in held)

    before = images()
    racing = contenders(networks, split, batch=40)
    for _ in range(4):
        for one in racing:
            one.advance()
    assert images() == before


def test_what_leaves_the_broken_alone_is_raced_too(networks: list[Network], split: Split) -> None:
    """Every kind of attack, several at once, in the ball where Carlini's attack means something."""
    ball, attacks = (
        L2(epsilon=0.4),
        (FGSM(), CarliniL2(num_steps=8, binary_search_steps=2, learning_rate=1), FABT(num_steps=3, num_targets=2)),
    )
    some = Split(split.images[:16], split.labels[:16])
    one = Contender(networks[3], some, attacks, ball, seed=1)
    while not one.is_finished:
        one.advance()
    assert one.standing.equal(evaluate(networks[3], some, attacks, ball, 1).worst_case)
    assert 0 < one.bound < one.clean.double().mean()


def test_of_equals_the_earlier_wins(networks: list[Network], split: Split) -> None:
    assert race(contenders([networks[2], networks[2], networks[2]], split), 2) == [0, 1]


def test_more_winners_than_contenders_are_all_of_them(networks: list[Network], split: Split) -> None:
    assert sorted(race(contenders(networks[:2], split), 9)) == [0, 1]
