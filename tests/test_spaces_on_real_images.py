"""The CIFAR-10 and ImageNet spaces on real images: every defense starts, trains, checkpoints and goes on, briefly."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.configuration import TrialConfig
from sweep.registry import validated
from sweep.study import Study
from sweep.trial import Trial

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SWEEP_DATA_DIR") or ROOT.parent / "shared" / "data")
pytestmark = pytest.mark.slow

CIFAR10 = {
    "name": "image_parquet",
    "train": "cifar10/cifar10_jpeg_test.parquet",  # the smaller file: this is about starting, not about figures
    "test_size": 5_000,
    "image_column": "jpeg",
    "label_column": "label",
    "validation_size": 4,
    "train_size": 10,
}
TINY_IMAGENET = {
    "name": "image_parquet",
    "train": "tiny_imagenet/tiny_imagenet_10.parquet",
    "split_column": "split",
    "train_value": "train",
    "test_value": "val",
    "image_column": "jpeg",
    "label_column": "label10",
    "validation_size": 4,
    "train_size": 10,
}


def briefly(study: Study, dataset: dict[str, Any], defense: str) -> TrialConfig:
    """A trial of the study's space as it is, but for few images, two epochs and one-step attacks."""
    point = next(config for config in study.space.corners() if config["defense"]["name"] == defense)
    attack = {"name": "pgd", "num_steps": 1}
    short = {"dataset": dataset, "epochs": 2, "batch_size": 10, "threads": 2, "final_attacks": []}
    config = study.trial_config(point, 0).to_json() | short | {"validation_attacks": [attack]}
    config["objective"] = [{"metric": "validation/pgd_1/adversarial_accuracy"}]
    if "attack" in config["defense"]:
        config["defense"]["attack"] = attack
    if defense == "gradient_regularization" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        config["precision"] = "float32"  # a CPU without bfloat16 is up to 28 times slower in it, and twice so the first
    return validated(TrialConfig, config, defense)


@pytest.mark.parametrize(
    "defense",
    ["standard", "adversarial_training", "trades", "gradient_regularization", "feature_squeezing", "hybrid"],
)
@pytest.mark.parametrize(
    ("space", "dataset"), [("cifar10_resnet18", CIFAR10), ("imagenet_efficientnet_b0", TINY_IMAGENET)]
)
def test_a_space_starts_trains_and_checkpoints(
    space: str, dataset: dict[str, Any], defense: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (DATA / str(dataset["train"])).exists():
        pytest.skip(f"{dataset['train']} is not in {DATA}")
    monkeypatch.setenv("SWEEP_DATA_DIR", str(DATA))
    study: Study = runpy.run_path(str(ROOT / "search_spaces" / f"{space}.py"))["STUDY"]
    config = briefly(study, dataset, defense)
    begun = next(Trial(config, tmp_path).run())
    assert (tmp_path / "checkpoint.pt").exists()
    resumed = Trial(config, tmp_path)
    assert [result.epoch for result in resumed.run(reported=begun.epoch)] == [2]
    assert resumed.results[0] == begun
    if defense != "hybrid":  # the validity checks' dozens of passes through these networks take a minute
        return
    figures = resumed.finish()
    assert 0 <= figures["validation/worst_case/adversarial_accuracy"] <= figures["validation/clean_accuracy"] <= 1
    assert all(parameter.isfinite().all() for parameter in resumed.network.parameters())
    assert (tmp_path / "best.safetensors").exists()
