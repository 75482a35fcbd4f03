from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from sweep.datasets import Dataset, NamedDataset, Split, Splits, data_directory
from sweep.datasets.base import Deviation, Mean, Part, in_threads
from sweep.datasets.cache import Decoded
from sweep.errors import ConfigurationError, DataError
from sweep.registry import Record, validated

PARTS: list[str] = []  # that were decoded


class Numbered(Dataset):
    """Sixty training and ten test images; each image's pixels and label are its number."""

    mean: Mean = (0.5,)
    std: Deviation = (0.25,)

    def sources(self, part: Part) -> Sequence[Path]:
        return ()

    def decode(self, part: Part) -> Decoded:
        PARTS.append(part)
        numbers = np.arange(60) if part == "train" else np.arange(100, 110)
        return Decoded([np.full((1, 2, 3), number, np.uint8) for number in numbers], numbers, classes=60)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    PARTS.clear()


def test_pixels_are_the_bytes_as_fractions_and_leave_the_bytes_alone() -> None:
    images = torch.tensor([0, 51, 255, 1], dtype=torch.uint8).view(4, 1, 1, 1)
    split = Split(images, torch.arange(4))
    assert split.pixels(slice(0, 3)).flatten().tolist() == [0.0, pytest.approx(0.2), 1.0]
    chosen = split.pixels(torch.tensor([2, 0]))
    assert chosen.dtype == torch.float32 and chosen.shape == (2, 1, 1, 1) and chosen.flatten().tolist() == [1.0, 0.0]
    assert images.flatten().tolist() == [0, 51, 255, 1]
    assert len(split.to("cpu")) == 4


def test_training_and_validation_share_nothing_and_miss_nothing() -> None:
    splits = Numbered(validation_size=20).load()
    train, validation = splits.train.labels.tolist(), splits.validation.labels.tolist()
    assert len(train) == 40 and len(validation) == 20
    assert sorted(train + validation) == list(range(60))
    assert train != sorted(train)
    assert (splits.channels, splits.size, splits.classes) == (1, (2, 3), 60)


def test_every_image_keeps_its_label() -> None:
    splits = Numbered(validation_size=20).load()
    for split in (splits.train, splits.validation, Numbered().load_test()):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert torch.equal(split.images.amax((1, 2, 3)).long(), split.labels)


def test_a_shorter_training_split_is_the_beginning_of_the_whole_one() -> None:
    whole, short = Numbered(validation_size=20).load(), Numbered(validation_size=20, train_size=7).load()
    assert torch.equal(short.train.labels, whole.train.labels[:7])
    assert torch.equal(short.validation.labels, whole.validation.labels)


def test_the_split_is_its_seeds_alone() -> None:
    first, again, other = (Numbered(validation_size=20, split_seed=seed).load() for seed in (0, 0, 1))
    assert torch.equal(first.validation.labels, again.validation.labels)
    assert set(first.validation.labels.tolist()) != set(other.validation.labels.tolist())


@pytest.mark.parametrize("test_first", [False, True])
def test_the_order_of_calls_changes_nothing(test_first: bool) -> None:
    dataset = Numbered(validation_size=20)
    test = dataset.load_test() if test_first else None
    splits = dataset.load()
    test = test or dataset.load_test()
    assert splits.validation.labels[:3].tolist() == [15, 0, 9]  # pinned: a study's split is never to change
    assert test.labels.tolist() == list(range(100, 110))


def test_a_search_never_touches_the_test_part() -> None:
    Numbered(validation_size=20).load()
    assert PARTS == ["train"]
    assert [field.name for field in dataclasses.fields(Splits)] == ["train", "validation", "classes"]


@pytest.mark.parametrize("sizes", [{"validation_size": 60}, {"validation_size": 20, "train_size": 41}])
def test_more_than_there_is_says_how_much_there_is(sizes: dict[str, int]) -> None:
    with pytest.raises(DataError, match=f"60 images, of which validation_size={sizes['validation_size']} are held out"):
        validated(Numbered, sizes, "dataset").load()


def test_statistics_follow_the_images_channels() -> None:
    colour = Numbered(mean=(0.1, 0.2, 0.6), std=(0.2, 0.2, 0.2))
    assert colour.statistics(3) == ((0.1, 0.2, 0.6), (0.2, 0.2, 0.2))
    (mean,), (std,) = colour.statistics(1)
    assert mean == pytest.approx(0.3) and std == pytest.approx(0.2)
    with pytest.raises(DataError, match="mean has 1 value, but the images have 3 channels"):
        Numbered().statistics(3)


class Configuration(Record):
    dataset: NamedDataset


def test_a_configuration_survives_json_with_its_statistics() -> None:
    given = validated(Configuration, {"dataset": {"name": "mnist", "mean": [0.5], "split_seed": 3}}, "trial")
    assert given.dataset.mean == (0.5,)
    assert validated(Configuration, given.model_dump(mode="json"), "trial") == given


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"validation_sise": 5}, "did you mean 'validation_size'"),
        ({"validation_size": 0}, "greater than or equal to 1"),
        ({"mean": ["0.5"]}, "valid number"),
        ({"std": [0.0]}, "greater than 0"),
        ({"train_size": "100"}, "valid integer"),
    ],
)
def test_mistakes_are_named(parameters: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        validated(Configuration, {"dataset": {"name": "mnist", **parameters}}, "trial")


def test_the_data_directory_is_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWEEP_DATA_DIR", str(tmp_path))
    assert data_directory() == tmp_path.resolve()
    monkeypatch.delenv("SWEEP_DATA_DIR")
    assert data_directory() == (Path.home() / ".cache/sweep/data").resolve()


def test_threads_keep_the_order_and_pass_errors_on() -> None:
    assert list(in_threads(lambda number: number * 2, range(1_000), chunk=7)) == [2 * number for number in range(1_000)]
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda number: 1 // (number - 500), range(1_000)))
