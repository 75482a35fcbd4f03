"""What every registered attack promises, on a network that was trained without any defense on real digits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sweep.attacks import Adversary, Attack, misclassified
from sweep.datasets.digits import Digits
from sweep.models.network import Network
from sweep.models.small_cnn import SmallCNN
from sweep.registry import KINDS, build
from sweep.seeding import generator, layer_randomness
from sweep.threat_models import ThreatModel

# Those that are too dear as they come; every other one is used as it comes.
CHEAPER: dict[str, dict[str, Any]] = {
    "apgd": {"num_steps": 20},
    "apgd_t": {"num_steps": 10, "num_targets": 3},
    "auto_attack": {"num_steps": 4, "num_queries": 50},
    "auto_attack_lite": {"num_steps": 4},
    "carlini_l2": {"num_steps": 75, "learning_rate": 0.1, "binary_search_steps": 2, "initial_constant": 5.0},
    "fab_t": {"num_steps": 10},
    "random_noise": {"num_draws": 30},
    "square": {"num_queries": 100},
}
CONTROLS = {"random_noise"}  # what no real attack may do less than: it breaks something, and need not break much
RADII = {"linf": 0.2, "l2": 1.5}
CASES = [(name, ball) for name, kind in KINDS["attack"].items() for ball in getattr(kind, "threat_models")]  # noqa: B009
Undefended = tuple[Network, Tensor, Tensor]


@pytest.fixture(scope="module")
def undefended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undefended]:
    """The network, and 60 validation images that it classifies correctly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        splits = Digits().load()
    with layer_randomness(0, "test"):
        network = Network(SmallCNN().build(1, (8, 8), 10), [0.305], [0.376])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for epoch in range(12):
        for rows in torch.split(torch.randperm(len(splits.train), generator=generator(0, epoch)), 64):
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(network(splits.train.pixels(rows)), splits.train.labels[rows]))
            optimizer.step()
    network.eval().zero_grad(set_to_none=True)
    images, labels = splits.validation.pixels(slice(None)), splits.validation.labels
    right = ~misclassified(network, images, labels)
    assert right.double().mean() > 0.95
    yield network, images[right][:60], labels[right][:60]


@cache
def attack_named(name: str) -> Attack:
    attack: Attack = build("attack", {"name": name, **CHEAPER.get(name, {})})
    return attack


def adversary(ball: str, epsilon: float | None = None) -> Adversary:
    threat_model: ThreatModel = build("threat_model", {"name": ball, "epsilon": RADII[ball]})
    return Adversary(threat_model, epsilon or threat_model.epsilon, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_an_undefended_network_falls(name: str, ball: str, undefended: Undefended) -> None:
    network, images, labels = undefended
    attack, against = attack_named(name), adversary(ball)
    originals = images.clone()
    points = attack.perturb(network, images, labels, against, until_broken=True)
    assert (~misclassified(network, points, labels)).double().mean() < (1 if name in CONTROLS else 0.5)
    assert torch.equal(images, originals), "the images given are left alone"
    assert (points.shape, points.dtype, points.requires_grad) == (images.shape, images.dtype, False)
    assert (against.threat_model.distance(points, images) <= RADII[ball] + 1e-5).all()
    assert points.min() >= 0
    assert points.max() <= 1


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_the_network_is_left_as_it_was(name: str, ball: str, undefended: Undefended) -> None:
    network, images, labels = undefended
    before = deepcopy(network.state_dict())
    attack_named(name).perturb(network, images[:4], labels[:4], adversary(ball))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not network.training


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_its_cost_is_the_one_it_declares(name: str, ball: str, undefended: Undefended) -> None:
    network, images, labels = undefended
    network.gradient_evaluations = 0
    attack_named(name).perturb(network, images[:5], labels[:5], adversary(ball))
    assert network.gradient_evaluations == 5 * attack_named(name).gradient_evaluations


@pytest.mark.parametrize("until_broken", [True, False])
@pytest.mark.parametrize(("name", "ball"), CASES)
def test_it_repeats_itself_and_ignores_neighbours(
    name: str, ball: str, until_broken: bool, undefended: Undefended
) -> None:
    network, images, labels = undefended
    network, images, labels = deepcopy(network).double(), images[:6].double(), labels[:6]
    attack = attack_named(name)
    first = attack.perturb(network, images, labels, adversary(ball), until_broken=until_broken)
    again = attack.perturb(network, images, labels, adversary(ball), until_broken=until_broken)
    assert torch.equal(first, again)
    others, lies = images.clone(), labels.clone()
    others[:3], lies[:3] = 0.5, (labels[:3] + 1) % 10
    among = attack.perturb(network, others, lies, adversary(ball), until_broken=until_broken)
    assert torch.allclose(first[3:], among[3:], atol=1e-6)


@pytest.mark.parametrize("name", KINDS["attack"])
def test_its_label_can_be_part_of_a_metric_s_name(name: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", attack_named(name).label)


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_the_radius_may_be_a_tensor(name: str, ball: str, undefended: Undefended) -> None:
    network, images, labels = undefended
    network, images, labels = deepcopy(network).double(), images[:4].double(), labels[:4]
    plain = attack_named(name).perturb(network, images, labels, adversary(ball))
    radius = torch.tensor(RADII[ball], dtype=torch.float64)
    given = Adversary(adversary(ball).threat_model, radius, torch.Generator().manual_seed(0))
    assert torch.allclose(attack_named(name).perturb(network, images, labels, given), plain, atol=1e-6)
