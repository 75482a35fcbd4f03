from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from sweep.datasets.cifar10 import CIFAR10
from sweep.errors import DataError
from sweep.models.vision import torchvision

FOLDER = "cifar-10-batches-py"
IMAGES = np.random.default_rng(0).integers(
    0, 256, (6, 10, 3, 32, 32), dtype=np.uint8
)  # five training batches, one test
LABELS = np.random.default_rng(1).integers(0, 10, (6, 10))


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory without a network."""
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEP_DATA_DIR", str(tmp_path / "data"))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    return tmp_path / "data"


def write_batches(folder: Path) -> dict[str, str]:
    """A small dataset in torchvision's layout; returns each file's MD5."""
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    contents: dict[str, object] = {
        name: {"data": IMAGES[batch].reshape(10, -1), "labels": LABELS[batch].tolist()}
        for batch, name in enumerate(names)
    }
    contents["batches.meta"] = {"label_names": [str(number) for number in range(10)]}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}


@pytest.mark.parametrize("parent", ["", "cifar10"])
def test_torchvisions_layout_is_read_channels_first(data: Path, monkeypatch: pytest.MonkeyPatch, parent: str) -> None:
    digests = write_batches(data / parent / FOLDER)
    official = torchvision().datasets.CIFAR10  # the check is torchvision's own; only the expected digests are ours
    monkeypatch.setattr(official, "train_list", [[name, digests[name]] for name in list(digests)[:5]])
    monkeypatch.setattr(official, "test_list", [["test_batch", digests["test_batch"]]])
    monkeypatch.setattr(official, "meta", {**official.meta, "md5": digests["batches.meta"]})
    test = CIFAR10().load_test()
    assert torch.equal(test.images, torch.from_numpy(IMAGES[5])) and test.labels.tolist() == LABELS[5].tolist()
    splits = CIFAR10(validation_size=20).load()
    assert (len(splits.train), len(splits.validation)) == (30, 20)
    assert (splits.classes, splits.channels, splits.size) == (10, 3, (32, 32))
    found = [image.numpy().tobytes() for image in torch.cat([splits.train.images, splits.validation.images])]
    assert sorted(found) == sorted(image.tobytes() for image in IMAGES[:5].reshape(50, -1))


def test_files_that_are_not_the_official_ones_are_refused_unread(data: Path) -> None:
    write_batches(data / FOLDER)
    with pytest.raises(DataError, match=r"corrupted.*delete the folder") as caught:
        CIFAR10().load()
    assert str(data / FOLDER) in str(caught.value)


def test_absent_files_that_cannot_be_downloaded_say_what_to_do(data: Path) -> None:
    with pytest.raises(DataError) as caught:
        CIFAR10().load()
    message = str(caught.value)
    assert str(data / FOLDER) in message and str(data / "cifar10" / FOLDER) in message
    assert "SWEEP_DATA_DIR" in message and "not downloadable" in message
