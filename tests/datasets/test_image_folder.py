from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sweep.datasets.image_folder import ImageFolder
from sweep.errors import DataError

COLOURS = {"ant": (200, 0, 0), "bee": (0, 200, 0), "cat": (0, 0, 200)}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes, each of its own colour: six training and two test images of mixed sizes and formats."""
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEP_DATA_DIR", str(tmp_path))
    for part, count in (("train", 6), ("val", 2)):
        for name, colour in COLOURS.items():
            folder = tmp_path / "things" / part / name
            folder.mkdir(parents=True)
            (folder / "notes.txt").write_text("not an image")
            for number in range(count):
                size = (20 + number, 30 - 2 * number)
                Image.new("RGB", size, colour).save(folder / f"{number}.{'png' if number % 2 else 'JPEG'}")
    return tmp_path / "things"


def test_labels_are_the_folders_in_alphabetical_order() -> None:
    dataset = ImageFolder(folder="things", size=16, validation_size=6)
    splits, test = dataset.load(), dataset.load_test()
    assert (len(splits.train), len(splits.validation), len(test), splits.classes) == (12, 6, 6, 3)
    assert (splits.channels, splits.size) == (3, (16, 16))
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for split in (splits.train, splits.validation, test):
        brightest = split.images.float().mean((2, 3)).argmax(1)
        assert brightest.tolist() == split.labels.tolist()


def test_a_subset_of_classes_is_numbered_anew() -> None:
    dataset = ImageFolder(folder="things", size=8, classes=("cat", "ant"), validation_size=2)
    splits, test = dataset.load(), dataset.load_test()
    assert splits.classes == 2 and len(splits.train) == 10
    assert test.images.float().mean((2, 3)).argmax(1).tolist() == [0, 0, 2, 2] and test.labels.tolist() == [0, 0, 1, 1]


def test_the_shorter_side_is_resized_and_the_centre_kept(root: Path) -> None:
    stripes = np.zeros((20, 80, 3), np.uint8)  # twice as large as the crop; bands of 30, 20 and 30 columns
    stripes[:, :30, 0], stripes[:, 30:50, 1], stripes[:, 50:, 2] = 255, 255, 255
    Image.fromarray(stripes).save(root / "val" / "ant" / "0.png")
    image = ImageFolder(folder="things", size=10).load_test().images[1]  # after 0.JPEG
    assert image.shape == (3, 10, 10)
    inner = image[:, :, 1:-1]  # the crop is the middle band, columns 15..24 of 40; its edges are interpolated
    assert (inner[1] > 250).all() and (inner[[0, 2]] < 5).all()


def test_grayscale_becomes_colour(root: Path) -> None:
    Image.new("L", (9, 9), 77).save(root / "val" / "ant" / "0.png")
    assert (ImageFolder(folder="things", size=8).load_test().images[1] == 77).all()


def test_a_file_that_is_no_image_is_named(root: Path) -> None:
    broken = root / "train" / "bee" / "0.JPEG"
    broken.write_bytes(b"these bytes are no image")
    with pytest.raises(DataError, match="not an image in a known format") as caught:
        ImageFolder(folder="things", size=8, validation_size=2).load()
    assert str(broken) in str(caught.value)


def test_a_truncated_image_is_named(root: Path) -> None:
    broken = root / "train" / "bee" / "0.JPEG"
    broken.write_bytes(broken.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a readable image") as caught:
        ImageFolder(folder="things", size=8, validation_size=2).load()
    assert str(broken) in str(caught.value)


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"no class folder 'bea'.*nearest of its 3: bee.*no class folder 'cot'"):
        ImageFolder(folder="things", size=8, classes=("ant", "bea", "cot")).load()
    with pytest.raises(DataError, match=r"thongs/train: no such folder.*SWEEP_DATA_DIR"):
        ImageFolder(folder="thongs", size=8).load()
    for name in ("bee", "cat"):
        for file in (root / "val" / name).glob("[0-9]*"):
            file.unlink()
    with pytest.raises(DataError, match="no image of class 'bee' and 'cat'"):
        ImageFolder(folder="things", size=8).load_test()
