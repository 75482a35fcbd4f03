from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sweep.datasets.mnist import MNIST
from sweep.errors import DataError

DATA = Path(os.environ.get("SWEEP_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data").resolve()


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory without a network."""
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEP_DATA_DIR", str(tmp_path / "data"))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    return tmp_path / "data"


def write_idx(path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 10


@pytest.mark.skipif(not (DATA / "mnist").is_dir(), reason=f"no real MNIST in {DATA}")
def test_the_official_files_give_the_official_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_DATA_DIR", str(DATA))
    splits, test = MNIST().load(), MNIST().load_test()
    assert (len(splits.train), len(splits.validation), len(test)) == (55_000, 5_000, 10_000)
    assert (splits.classes, splits.channels, splits.size) == (10, 1, (28, 28))
    counts = torch.bincount(splits.train.labels) + torch.bincount(splits.validation.labels)
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # as published
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    pixels = splits.train.pixels(slice(None))
    assert pixels.mean().item() == pytest.approx(MNIST().mean[0], abs=2e-3)
    assert pixels.std().item() == pytest.approx(MNIST().std[0], abs=2e-3)


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_both_folders_and_both_forms_are_read(data: Path, folder: str, suffix: str) -> None:
    write_idx(data / folder / f"t10k-images-idx3-ubyte{suffix}", IMAGES)
    write_idx(data / folder / f"t10k-labels-idx1-ubyte{suffix}", LABELS)
    test = MNIST().load_test()
    assert torch.equal(test.images[:, 0], torch.from_numpy(IMAGES))
    assert test.labels.tolist() == LABELS.tolist()


def test_absent_files_that_cannot_be_downloaded_say_what_to_do(data: Path) -> None:
    with pytest.raises(DataError) as caught:
        MNIST().load()
    message = str(caught.value)
    assert f"{data / 'mnist'}" in message and f"{data / 'MNIST' / 'raw'}" in message
    assert "SWEEP_DATA_DIR" in message and "not downloadable" in message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not gzip", "not a readable gzip file"),
        (gzip.compress(b"x" * 100)[:-9], "not a readable gzip file"),
        (gzip.compress(b"\x00\x00\x0d\x03" + bytes(100)), "not an idx file of bytes in 3 dimensions"),
        (gzip.compress(b"\x00\x00\x08\x03" + struct.pack(">3i", 20, 28, 28) + bytes(9)), "and holds 9"),
    ],
    ids=["plain", "cut", "not idx", "short"],
)
def test_a_damaged_file_is_named(data: Path, content: bytes, sentence: str) -> None:
    images = data / "mnist" / "t10k-images-idx3-ubyte.gz"
    write_idx(data / "mnist" / "t10k-labels-idx1-ubyte", LABELS)
    images.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        MNIST().load_test()
    assert str(images) in str(caught.value)


def test_labels_must_match_the_images(data: Path) -> None:
    write_idx(data / "mnist" / "t10k-images-idx3-ubyte", IMAGES)
    write_idx(data / "mnist" / "t10k-labels-idx1-ubyte", LABELS[:19])
    with pytest.raises(DataError, match="19 labels up to 9 for 20 images"):
        MNIST().load_test()
