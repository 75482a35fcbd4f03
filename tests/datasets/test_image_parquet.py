from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sweep.datasets import Split
from sweep.datasets.image_parquet import ImageParquet
from sweep.errors import ConfigurationError, DataError
from sweep.registry import validated

DATA = Path(os.environ.get("SWEEP_DATA_DIR") or Path(__file__).parents[3] / "shared" / "data").resolve()
needs_data = pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason=f"no real CIFAR-10 and Tiny-ImageNet in {DATA}")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SWEEP_DATA_DIR", str(tmp_path))
    return tmp_path


def png(value: int, size: tuple[int, int] = (6, 6), mode: str = "L") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, "png")
    return buffer.getvalue()


def write(path: Path, **changed: Any) -> None:
    """Thirty images whose value is their row's number, of three classes in turn; columns replaced, or None to drop."""
    columns = {"image": [png(row) for row in range(30)], "label": [row % 3 for row in range(30)]}
    columns |= changed
    pq.write_table(pa.table({name: column for name, column in columns.items() if column is not None}), path)


def values(split: Split) -> list[int]:
    """The row of each image."""
    return split.images.amax((1, 2, 3)).tolist()


def test_a_test_split_is_drawn_once_and_for_all(data: Path) -> None:
    write(data / "x.parquet")
    whole = set(range(30))
    first, second = (
        ImageParquet(train="x.parquet", test_size=8, validation_size=5, split_seed=seed) for seed in (0, 1)
    )
    splits, test = first.load(), first.load_test()
    assert (len(splits.train), len(splits.validation), len(test), splits.classes) == (17, 5, 8, 3)
    assert set(values(splits.train)) | set(values(splits.validation)) | set(values(test)) == whole
    assert values(second.load_test()) == values(test) and values(second.load().train) != values(splits.train)
    for split in (splits.train, splits.validation, test):
        assert [value % 3 for value in values(split)] == split.labels.tolist()


def test_a_pattern_names_several_files_and_text_labels_are_sorted(data: Path) -> None:
    write(data / "train-0.parquet", label=["bee", "ant", "cat"] * 10)
    write(data / "train-1.parquet", label=["bee"] * 30, image=[png(row + 30) for row in range(30)])
    write(data / "test.parquet", label=["cat"] * 30)
    dataset = ImageParquet(train="train-*.parquet", test="test.parquet", validation_size=10)
    splits = dataset.load()
    assert sorted(values(splits.train) + values(splits.validation)) == list(range(60)) and splits.classes == 3
    expected = [[1, 0, 2][value % 3] if value < 30 else 1 for value in values(splits.train)]
    assert splits.train.labels.tolist() == expected
    assert dataset.load_test().labels.tolist() == [2] * 30


def test_a_split_column_selects_rows(data: Path) -> None:
    write(data / "x.parquet", part=["fit"] * 21 + ["hold"] * 9)
    dataset = ImageParquet(
        train="x.parquet", split_column="part", train_value="fit", test_value="hold", validation_size=1
    )
    assert sorted(values(dataset.load().train) + values(dataset.load().validation)) == list(range(21))
    assert values(dataset.load_test()) == list(range(21, 30))
    with pytest.raises(DataError, match="no row where column 'part' is 'bold'; among those that occur are hold"):
        dataset.model_copy(update={"test_value": "bold"}).load_test()


def test_hugging_faces_struct_of_bytes_and_path_is_read(data: Path) -> None:
    write(data / "x.parquet", image=[{"bytes": png(row), "path": f"{row}.png"} for row in range(30)])
    assert len(ImageParquet(train="x.parquet", test_size=3, validation_size=2).load().train) == 25
    write(data / "y.parquet", image=[{"bytes": None if row == 4 else png(row), "path": "z"} for row in range(30)])
    with pytest.raises(DataError, match=r"y.parquet: column 'image', row 4: no image bytes"):
        ImageParquet(train="x.parquet", test="y.parquet").load_test()


def test_size_and_channels_convert(data: Path) -> None:
    write(data / "x.parquet", image=[png(row, size=(6 + row, 9)) for row in range(30)])
    for channels in (1, 3):
        parameters = {"train": "x.parquet", "test_size": 3, "size": 5, "channels": channels, "validation_size": 2}
        splits = validated(ImageParquet, parameters, "dataset").load()
        assert (splits.channels, splits.size) == (channels, (5, 5))
        assert splits.train.images.flatten(1).float().std(1).max() == 0  # each is still of one value
    write(data / "y.parquet")
    with pytest.raises(DataError, match=r"row 1: 9x7 where the first image is 9x6; give `size`"):
        ImageParquet(train="y.parquet", test="x.parquet").load_test()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"image": [png(0)] * 7 + [b"broken"] + [png(0)] * 22}, "column 'image', row 7: not an image"),
        ({"image": [png(0)] * 7 + [png(0)[:45]] + [png(0)] * 22}, "column 'image', row 7: not a"),
        ({"image": [png(0)] * 29 + [None]}, "column 'image', row 29: no image bytes"),
        ({"image": list(range(30))}, "column 'image' holds int64; it must hold encoded images"),
        ({"image": None, "imgae": [png(0)] * 30}, "unknown column 'image'; did you mean 'imgae'"),
        ({"label": None, "labels": [0] * 30}, "unknown column 'label'; did you mean 'labels'"),
        ({"image": None, "label": None, "pixels": [0] * 30}, "unknown column 'image' .*; unknown column 'label'"),
        ({"label": [0.5] * 30}, "column 'label' holds double; labels must be integers or texts"),
        ({"label": [0, 1, None] * 10}, "column 'label', row 2: no label"),
        ({"label": [0, 2, 3] * 10}, "from 0 without gaps, got 3 labels between 0 and 3: 1 is missing"),
        ({"label": [1, 2, 3] * 10}, "0 is missing"),
    ],
)
def test_malformed_files_say_file_column_and_row(data: Path, changed: dict[str, Any], sentence: str) -> None:
    write(data / "x.parquet", **changed)
    write(data / "test.parquet")
    with pytest.raises(DataError, match=sentence) as caught:
        ImageParquet(train="x.parquet", test="test.parquet", validation_size=2).load()
    assert "x.parquet" in str(caught.value)


def test_a_label_that_only_the_test_split_has_is_refused(data: Path) -> None:
    write(data / "train.parquet")
    write(data / "test.parquet", label=[0] * 12 + [3] + [0] * 17)
    dataset = ImageParquet(train="train.parquet", test="test.parquet", validation_size=2)
    dataset.load()
    with pytest.raises(DataError, match=r"test.parquet: column 'label', row 12: label '3' is none of"):
        dataset.load_test()


def test_the_test_split_follows_both_files(data: Path) -> None:
    write(data / "train.parquet", label=["a", "b", "c"] * 10)
    write(data / "test.parquet", label=["b"] * 30)
    dataset = ImageParquet(train="train.parquet", test="test.parquet")
    assert dataset.load_test().labels.tolist() == [1] * 30
    write(data / "train.parquet", label=["b", "c", "d"] * 10)  # the classes' numbers come from here
    assert dataset.load_test().labels.tolist() == [0] * 30
    write(data / "test.parquet", label=["d"] * 30)
    assert dataset.load_test().labels.tolist() == [2] * 30


def test_a_test_file_that_is_also_trained_on_is_refused(data: Path) -> None:
    write(data / "one.parquet")
    write(data / "two.parquet")
    with pytest.raises(DataError, match="share a file"):
        ImageParquet(train="*.parquet", test="two.parquet", validation_size=1).load()


def test_files_that_are_absent_or_not_parquet_are_named(data: Path) -> None:
    with pytest.raises(DataError, match=r"x.parquet: no such file; set SWEEP_DATA_DIR"):
        ImageParquet(train="x.parquet", test_size=3).load()
    (data / "x.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"x.parquet: not a readable Parquet file"):
        ImageParquet(train="x.parquet", test_size=3).load()
    write(data / "x.parquet", image=[np.random.default_rng(row).bytes(900) for row in range(30)])
    content = bytearray((data / "x.parquet").read_bytes())
    content[4:60] = b"\xff" * 56  # the first page's header
    (data / "x.parquet").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"x.parquet: not a readable Parquet file"):
        ImageParquet(train="x.parquet", test_size=3, validation_size=2).load()


@pytest.mark.parametrize(
    "parameters",
    [{}, {"test": "y", "test_size": 3}, {"split_column": "s", "test_size": 3}, {"test_value": "v"}, {"channels": 2}],
)
def test_contradictory_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        validated(ImageParquet, {"train": "x.parquet", **parameters}, "dataset")


def test_all_contradictions_come_at_once() -> None:
    with pytest.raises(ConfigurationError, match="2 mistakes") as caught:
        validated(ImageParquet, {"train": "x.parquet", "test": "y.parquet", "test_value": "v"}, "dataset")
    assert "exactly one of test" in str(caught.value) and "test_value needs split_column" in str(caught.value)


CIFAR10 = ImageParquet(
    train="cifar10/cifar10_jpeg_train.parquet", test="cifar10/cifar10_jpeg_test.parquet", image_column="jpeg"
)
TINY_IMAGENET = ImageParquet(
    train="tiny_imagenet/tiny_imagenet_10.parquet",
    split_column="split",
    train_value="train",
    test_value="val",
    image_column="jpeg",
    label_column="label10",
    validation_size=500,
)


@needs_data
def test_the_real_cifar10_test_split_is_close_to_the_lossless_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_DATA_DIR", str(DATA))
    test = CIFAR10.load_test()
    assert test.images.shape == (10_000, 3, 32, 32) and torch.bincount(test.labels).tolist() == [1000] * 10
    place = pq.read_table(DATA / str(CIFAR10.test), columns=["orig_index"]).column(0).to_numpy()  # -1: not known
    with np.load(DATA / "cifar10" / "cifar10_lossless_subset.npz") as lossless:
        exact, labels = lossless["test_x"].transpose(0, 3, 1, 2), lossless["test_y"]
    original = np.argsort(np.where(place < 0, len(place), place))[: len(exact)]
    assert np.array_equal(test.labels.numpy()[original], labels)
    error = ((test.images.numpy()[original] / 255 - exact / 255) ** 2).mean((1, 2, 3))
    assert np.median(-10 * np.log10(error)) == pytest.approx(30.5, abs=0.5)  # dB, as the data's README says


@needs_data
def test_the_real_tiny_imagenet_is_selected_by_its_split_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_DATA_DIR", str(DATA))
    splits, test = TINY_IMAGENET.load(), TINY_IMAGENET.load_test()
    assert (len(splits.train), len(splits.validation), len(test)) == (4500, 500, 500)
    assert (splits.classes, splits.channels, splits.size) == (10, 3, (64, 64))
    assert torch.bincount(test.labels).tolist() == [50] * 10


@needs_data
@pytest.mark.slow
def test_the_real_cifar10_training_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_DATA_DIR", str(DATA))
    splits = CIFAR10.load()
    assert (len(splits.train), len(splits.validation), splits.classes) == (49_000, 1_000, 10)
    counts = torch.bincount(splits.train.labels) + torch.bincount(splits.validation.labels)
    assert counts.tolist() == [5000] * 10
    mean = splits.train.pixels(slice(None)).mean((0, 2, 3)).tolist()
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)
