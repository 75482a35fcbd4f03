"""A dataset gives a search its training and validation splits, and never the test split.

Data lie under $SWEEP_DATA_DIR (default ~/.cache/sweep/data). Splits depend on the dataset's own `split_seed`, never on
a trial's seed: all trials of a study are trained and judged on the same images.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, ClassVar, Literal, TypeVar

import numpy as np
import torch
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError
from pydantic import Field, SerializeAsAny
from torch import Tensor

from sweep.datasets.cache import Decoded, Image, Stored, cache_directory, decoded_once, locked
from sweep.errors import DataError, counted
from sweep.registry import Component, named

Part = Literal["train", "test"]  # of the source; validation is held out of "train"
PerChannel = tuple[float, ...]

ValidationSize = Annotated[int, Field(ge=1, description="images held out of the training part for validation")]
Mean = Annotated[PerChannel, Field(strict=False, min_length=1, description="per channel, of pixels in [0,1]")]
Deviation = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...],
    Field(strict=False, min_length=1, description="standard deviation per channel, of pixels in [0,1]"),
]

IMAGENET_MEAN: PerChannel = (0.485, 0.456, 0.406)
IMAGENET_STD: PerChannel = (0.229, 0.224, 0.225)


def data_directory() -> Path:
    """Where data lie: $SWEEP_DATA_DIR, or ~/.cache/sweep/data."""
    return Path(os.environ.get("SWEEP_DATA_DIR") or "~/.cache/sweep/data").expanduser().resolve()


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] and labels int64 [N] on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: Tensor | slice) -> Tensor:
        """The images at `index` as float32 in [0, 1], on the images' device."""
        return self.images[index].to(torch.float32).div_(255)

    def to(self, device: torch.device | str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageShape:
    """What a network must know of its images. It goes with the weights, which so can be loaded where no data are."""

    channels: int
    size: tuple[int, int]  # height and width in pixels
    classes: int

    @classmethod
    def told(cls, metadata: Mapping[str, str]) -> ImageShape:
        """What `metadata` told. Raises KeyError or ValueError for anything else."""
        channels, height, width = map(int, metadata["images"].split("x"))
        return cls(channels, (height, width), int(metadata["classes"]))

    def metadata(self) -> dict[str, str]:
        return {"images": "x".join(map(str, (self.channels, *self.size))), "classes": str(self.classes)}


@dataclass(frozen=True)
class Splits:
    """What a search may see. There is no test split in it to leak."""

    train: Split
    validation: Split
    classes: int

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train.images.shape[2], self.train.images.shape[3]

    @property
    def shape(self) -> ImageShape:
        return ImageShape(self.channels, self.size, self.classes)


class Dataset(Component):
    """Labelled images. A subclass says which files hold a part (train or test) and how to decode it."""

    kind: ClassVar[str] = "dataset"

    mean: Mean
    std: Deviation
    validation_size: ValidationSize = 5_000
    split_seed: int = Field(
        default=0, ge=0, description="of the split into training and validation: the study's, not a trial's"
    )
    train_size: int | None = Field(default=None, ge=1, description="use only so many training images; null uses all")

    @abstractmethod
    def sources(self, part: Part) -> Sequence[Path]:
        """The files that hold a part. Raises DataError where they are absent."""

    @abstractmethod
    def decode(self, part: Part) -> Decoded:
        """The images and labels of a part, in the source's order. Raises DataError where they are malformed."""

    def load(self) -> Splits:
        """Training and validation, disjoint: the beginning and the end of the shuffled training part, so that neither
        `train_size` nor `validation_size` changes the order of the other. Raises DataError."""
        part = self._stored("train", order=self.split_seed)
        available = len(part.labels) - self.validation_size
        wanted = available if self.train_size is None else self.train_size
        if not 1 <= wanted <= available:
            total = (
                f"{counted(len(part.labels), 'image')}, of which validation_size={self.validation_size:,} are held out"
            )
            left = f"{max(available, 0):,} are left to train on, and train_size is {self.train_size or 'all'}"
            raise DataError(f"dataset {self.name}: {total}; {left}")
        train = Split(part.images[:wanted], part.labels[:wanted])
        return Splits(train, Split(part.images[available:], part.labels[available:]), part.classes)

    def load_test(self) -> Split:
        """The test split, in the source's order. Nothing that searches opens it."""
        part = self._stored("test", order=None)
        return Split(part.images, part.labels)

    def lacks_test(self) -> str | None:
        """What is wrong where the test split's files are absent. They are looked for, and nothing in them is read."""
        try:
            self.sources("test")
        except DataError as error:
            return f"no test split, which a search does without and `sweep confirm` does not: {error}"
        return None

    def statistics(self, channels: int) -> tuple[PerChannel, PerChannel]:
        """Mean and standard deviation for images of so many channels; colour statistics are averaged for grayscale."""
        return _for_channels("mean", self.mean, channels), _for_channels("std", self.std, channels)

    def _stored(self, part: Part, order: int | None) -> Stored:
        undecoded = {"mean", "std", "validation_size", "split_seed", "train_size"}  # they change nothing that is stored
        parameters = {**self.model_dump(mode="json", exclude=undecoded), "part": part}
        return decoded_once(f"{self.name}-{part}", parameters, self.sources(part), order, lambda: self.decode(part))


NamedDataset = Annotated[SerializeAsAny[Dataset], named("dataset")]


def _for_channels(what: str, values: PerChannel, channels: int) -> PerChannel:
    if len(values) == channels:
        return values
    if channels == 1:
        return (sum(values) / len(values),)
    raise DataError(
        f"dataset {what} has {counted(len(values), 'value')}, but the images have {counted(channels, 'channel')}: "
        "give one for each"
    )


def found_or_downloaded(
    dataset: str, find: Callable[[], list[Path]], searched: Sequence[Path], download: Callable[[], object]
) -> list[Path]:
    """The files that `find` finds, downloaded first where it finds none. Raises DataError that says what to do."""
    with locked(
        cache_directory() / f"{dataset}.download.lock"
    ):  # a file that another process is downloading looks like a whole one
        found = find()
        if found:
            return found
        try:
            download()
            return find()
        except (OSError, RuntimeError, HTTPException) as error:
            folders = " and ".join(str(folder) for folder in searched)
            remedy = "put the files there, or set SWEEP_DATA_DIR to the folder that holds them"
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{dataset}: not found in {folders}, and not downloadable ({reason}); {remedy}") from error


def picture(
    source: IO[bytes] | Path, channels: int, resize: Callable[[PillowImage.Image], PillowImage.Image], where: str
) -> Image:
    """An encoded image as uint8 [C, H, W]. Raises DataError, which begins with `where`, if it is not one."""
    try:
        with PillowImage.open(source) as opened:
            pixels = np.asarray(resize(opened.convert("RGB" if channels == 3 else "L")))
    except UnidentifiedImageError:
        raise DataError(f"{where}: not an image in a known format") from None
    except Exception as error:  # damage breaks Pillow's readers anywhere: OSError, SyntaxError, TypeError, ...
        raise DataError(f"{where}: not a readable image ({error})") from error
    return np.moveaxis(pixels.reshape(*pixels.shape[:2], channels), 2, 0)


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], chunk: int = 64) -> Iterator[Result]:
    """`map` over threads, in order, with a few chunks in memory at a time. Pillow decodes outside of Python's lock."""
    remaining = iter(items)
    threads = os.cpu_count() or 1

    def work(some: list[Item]) -> list[Result]:  # a chunk at a time: handing over costs more than decoding 32x32 pixels
        return [function(item) for item in some]

    with ThreadPoolExecutor(threads) as workers:
        while chunks := [some for _ in range(2 * threads) if (some := list(islice(remaining, chunk)))]:
            for results in workers.map(work, chunks):
                yield from results
