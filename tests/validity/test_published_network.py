"""A genuine network, trained and published by others, passes every fast check at the radius it was trained for."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.evaluation import evaluate, fraction
from sweep.models.lenet5 import LeNet5
from sweep.models.network import Network
from sweep.registry import validated
from sweep.validity import CHECKS, IMAGES, Subject, asked, examine

CONFIG: dict[str, Any] = {
    "dataset": "mnist",
    "model": {"name": "lenet5", "variant": "advertorch"},
    "threat_model": {"name": "linf", "epsilon": 0.3},
    "defense": {"name": "adversarial_training", "epsilon": 0.3},
    "epochs": 1,
}


@pytest.mark.slow
def test_an_adversarially_trained_lenet5_is_believed() -> None:
    config = validated(TrialConfig, CONFIG, "test")
    core = LeNet5(variant="advertorch").build(1, (28, 28), 10)
    weights = torch.load(
        data() / "models" / "advertorch_mnist_lenet5_advtrained.pt", map_location="cpu", weights_only=True
    )
    core.load_state_dict(dict(zip(core.state_dict(), weights.values(), strict=True)))
    network, split = Network(core, (0.0,), (1.0,)), mnist(IMAGES["fast"])
    verdicts = evaluate(network, split, config.validation_attacks, config.threat_model, config.seed)
    assert fraction(verdicts.robust["pgd_10"]) > 0.85
    validity = examine(Subject(config, network, split, verdicts))
    assert validity.suspect == (), [CHECKS[id].explain(validity.figures[id]) for id in validity.suspect]
    not_asked = {check.id for check in asked(config)} - validity.figures.keys()
    assert not_asked == {"V23", "V27", "V29"}, "nobody knows its epochs, making, training images"


def mnist(size: int) -> Split:
    images = idx("t10k-images-idx3-ubyte.gz", 16).view(10_000, 1, 28, 28)
    return Split(images[:size], idx("t10k-labels-idx1-ubyte.gz", 8)[:size].long())


def idx(name: str, header: int) -> Tensor:
    with gzip.open(data() / "mnist" / name) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())


def data() -> Path:
    folder = Path(os.environ.get("SWEEP_DATA_DIR", Path(__file__).parents[2] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: set SWEEP_DATA_DIR, or put it in {folder}")
    return folder
