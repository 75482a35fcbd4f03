from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sweep.datasets import Split
from sweep.datasets.digits import Digits


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path))


def rows(split: Split) -> list[bytes]:
    return [image.numpy().tobytes() + bytes([label]) for image, label in zip(split.images, split.labels, strict=True)]


def test_the_three_splits_are_the_source_in_three_disjoint_parts() -> None:
    splits, test = Digits().load(), Digits().load_test()
    assert (len(splits.train), len(splits.validation), len(test)) == (1197, 300, 300)
    assert (splits.classes, splits.channels, splits.size) == (10, 1, (8, 8))
    source = load_digits()
    scaled = np.round(source.images * 255 / 16).astype(np.uint8)
    expected = [image.tobytes() + bytes([label]) for image, label in zip(scaled, source.target, strict=True)]
    assert sorted(rows(splits.train) + rows(splits.validation) + rows(test)) == sorted(expected)


def test_values_are_the_sources_sixteenths() -> None:
    pixels = Digits().load_test().pixels(slice(None))
    assert pixels.min() == 0 and pixels.max() == 1
    assert torch.allclose(pixels * 16, (pixels * 16).round(), atol=16 / 255 / 2 + 1e-6)


def test_the_test_split_is_the_same_under_every_split_seed() -> None:
    assert rows(Digits(split_seed=0).load_test()) == rows(Digits(split_seed=1).load_test())
    assert rows(Digits(split_seed=0).load().train) != rows(Digits(split_seed=1).load().train)


def test_the_default_statistics_are_those_of_the_training_split() -> None:
    pixels = Digits().load().train.pixels(slice(None))
    mean, std = Digits().statistics(1)
    assert mean[0] == pytest.approx(pixels.mean().item(), abs=1e-3)
    assert std[0] == pytest.approx(pixels.std().item(), abs=1e-3)
