"""Our attacks on networks that others published: they reproduce the figures that others measured.

The figures, and where data and weights come from, are in the README of the data folder. Each was measured with a plain
PGD, or with the authors' own code; ours may differ by two standard errors of a fraction of so many images.
"""

from __future__ import annotations

import gzip
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sweep.attacks import Attack
from sweep.attacks.auto_attack_lite import AutoAttackLite
from sweep.attacks.cw_pgd import CWPGD
from sweep.attacks.fab_t import FABT
from sweep.attacks.pgd import PGD
from sweep.attacks.square import Square
from sweep.datasets import Split
from sweep.evaluation import Verdicts, evaluate, fraction, predict
from sweep.models.lenet5 import LeNet5
from sweep.models.network import Network
from sweep.threat_models import ThreatModel
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf

JUDGED = 1_000
PGD_40 = PGD(num_steps=40, step_size=0.01)
PGD_20 = PGD(num_steps=20, step_size=0.5 / 255)
CW_PGD_20 = CWPGD(num_steps=20, step_size=0.5 / 255)


@dataclass(frozen=True)
class Published:
    """A weight file, its network, and the measured fractions."""

    file: str
    build: Callable[[], nn.Module]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clean: float
    adversarial: float


class ResNet2b(nn.Sequential):
    """A small ResNet without batch norm, as its weights name their layers: a 3x3 stem of stride 2, two blocks."""

    def __init__(self) -> None:
        blocks = nn.Sequential(Block(8, 16, stride=2), Block(16, 16, stride=1))
        stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        layers = [("conv1", stem), ("relu", nn.ReLU()), ("layer1", blocks), ("flatten", nn.Flatten())]
        head = [("linear1", nn.Linear(1024, 100)), ("relu2", nn.ReLU()), ("linear2", nn.Linear(100, 10))]
        super().__init__(OrderedDict([*layers, *head]))


class Block(nn.Module):
    def __init__(self, before: int, maps: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, maps, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, maps, 1, stride=stride))

    def forward(self, features: Tensor) -> Tensor:
        inner = self.conv2(self.conv1(features).relu())
        result: Tensor = (inner + self.shortcut(features)).relu()
        return result


def lenet5(variant: Literal["advertorch", "fast_adversarial"], channels: int, side: int) -> Callable[[], nn.Module]:
    return lambda: LeNet5(variant=variant).build(channels, (side, side), 10)


ADVERTORCH = [
    Published(f"advertorch_mnist_lenet5_{how}.pt", lenet5("advertorch", 1, 28), (0.0,), (1.0,), clean, adversarial)
    for how, clean, adversarial in [("advtrained", 0.9864, 0.935), ("clntrained", 0.9889, 0.0)]
]
CROWN = [
    Published(
        "abcrown_cifar_cnn_a_adv.model",
        lenet5("fast_adversarial", 3, 32),
        (0.4914, 0.4824, 0.4467),
        (0.2471, 0.2435, 0.2616),
        clean=0.664,
        adversarial=0.520,
    ),
    Published(
        "abcrown_resnet2b.pth",
        ResNet2b,
        (0.4914, 0.4822, 0.4465),
        (0.2471, 0.2435, 0.2616),
        clean=0.703,
        adversarial=0.568,
    ),
]


def by_file(published: Published) -> str:
    return published.file


@pytest.mark.parametrize("published", ADVERTORCH, ids=by_file)
def test_clean_accuracy_on_mnist_is_the_published_one(published: Published) -> None:
    split = mnist(10_000)
    guesses = predict(network(published), split).argmax(1)
    assert fraction(guesses == split.labels) == pytest.approx(published.clean, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("published", ADVERTORCH, ids=by_file)
def test_pgd_40_on_mnist_reproduces_the_measured_accuracy(published: Published) -> None:
    verdicts = evaluate(network(published), mnist(JUDGED), [PGD_40], Linf(epsilon=0.3), seed=0)
    assert_within_two_standard_errors(fraction(verdicts.robust[PGD_40.label]), published.adversarial)


@pytest.mark.slow
@pytest.mark.parametrize("published", CROWN, ids=by_file)
def test_pgd_20_on_cifar10_reproduces_the_measured_accuracy(published: Published) -> None:
    verdicts = attacked_on_cifar10(published)
    assert fraction(verdicts.clean) == pytest.approx(published.clean, abs=0.0015)
    assert_within_two_standard_errors(fraction(verdicts.robust[PGD_20.label]), published.adversarial)
    assert fraction(verdicts.robust[CW_PGD_20.label]) < fraction(verdicts.clean) - 0.1
    assert fraction(verdicts.worst_case) <= min(map(fraction, verdicts.robust.values()))


# Measured with the authors' own code (fra31/auto-attack @ a392200) at the same settings, on the first so many images.
LINF, L2_BALL = Linf(epsilon=2 / 255), L2(epsilon=0.25)
AUTHORS = [
    (CROWN[0], FABT(num_steps=10), LINF, 150, 0.4400),
    (CROWN[1], FABT(num_steps=10), L2_BALL, 150, 0.4533),
    (CROWN[0], Square(num_queries=300), LINF, 200, 0.6150),
    (CROWN[1], Square(num_queries=300), L2_BALL, 200, 0.6550),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("published", "attack", "ball", "size", "measured"), AUTHORS, ids=lambda value: getattr(value, "label", None)
)
def test_fab_and_square_reproduce_what_their_authors_code_measures(
    published: Published, attack: Attack, ball: ThreatModel, size: int, measured: float
) -> None:
    images = cifar10()
    judged = Split(images.images[:size], images.labels[:size])
    verdicts = evaluate(network(published), judged, [attack], ball, seed=0)
    assert_within_two_standard_errors(fraction(verdicts.robust[attack.label]), measured, size)


@pytest.mark.slow
@pytest.mark.parametrize("published", [ADVERTORCH[0], *CROWN], ids=by_file)
def test_autoattack_s_lighter_form_finds_no_less_than_pgd_with_restarts(published: Published) -> None:
    """So AutoAttack, of which it is the beginning, does not either; `benchmarks/attacks.py` runs the whole of it."""
    on_mnist = published in ADVERTORCH
    split, ball = (mnist(30), Linf(epsilon=0.3)) if on_mnist else (cifar10(60), Linf(epsilon=2 / 255))
    attacks: list[Attack] = [AutoAttackLite(num_steps=20), PGD(num_steps=10, num_restarts=10)]
    verdicts = evaluate(network(published), split, attacks, ball, seed=0)
    lite, pgd = (fraction(verdicts.robust[attack.label]) for attack in attacks)
    assert 0.3 < lite <= pgd < fraction(verdicts.clean)


def attacked_on_cifar10(published: Published) -> Verdicts:
    attacks = [PGD_20, CW_PGD_20]
    return evaluate(network(published), cifar10(), attacks, Linf(epsilon=2 / 255), seed=0)


def assert_within_two_standard_errors(found: float, measured: float, size: int = JUDGED) -> None:
    nearest = min(max(measured, 1 / size), 1 - 1 / size)  # a fraction of 0 would have no error at all
    assert found == pytest.approx(measured, abs=2 * (nearest * (1 - nearest) / size) ** 0.5)


def network(published: Published) -> Network:
    core = published.build()
    weights = torch.load(data() / "models" / published.file, map_location="cpu", weights_only=True)
    weights = weights.get("state_dict", weights)
    if set(weights) != set(core.state_dict()):  # layers numbered as in a Sequential: the same ones in the same order
        weights = dict(zip(core.state_dict(), weights.values(), strict=True))
    core.load_state_dict(weights)
    return Network(core, published.mean, published.std)


def mnist(size: int) -> Split:
    images = idx("t10k-images-idx3-ubyte.gz", 16).view(10_000, 1, 28, 28)
    return Split(images[:size], idx("t10k-labels-idx1-ubyte.gz", 8)[:size].long())


def idx(name: str, header: int) -> Tensor:
    with gzip.open(data() / "mnist" / name) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())


def cifar10(size: int = 1_000) -> Split:
    with np.load(data() / "cifar10" / "cifar10_lossless_subset.npz") as subset:
        images = torch.from_numpy(subset["test_x"][:size]).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.from_numpy(subset["test_y"][:size]).long())


def data() -> Path:
    folder = Path(os.environ.get("SWEEP_DATA_DIR", Path(__file__).parents[2] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: set SWEEP_DATA_DIR, or put it in {folder}")
    return folder
