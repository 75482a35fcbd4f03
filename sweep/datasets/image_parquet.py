from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from pydantic import Field, model_validator

from sweep.datasets.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Dataset,
    Deviation,
    Mean,
    Part,
    ValidationSize,
    data_directory,
    in_threads,
    picture,
)
from sweep.datasets.cache import Decoded, Image
from sweep.errors import DataError, unknown
from sweep.registry import register
from sweep.seeding import generator


@dataclass(frozen=True)
class _Rows:
    """Some rows of one file: their numbers, ascending, and their labels as the file has them."""

    file: Path
    numbers: NDArray[np.int64]
    labels: NDArray[Any]


@register("image_parquet")
class ImageParquet(Dataset):
    """Parquet files of encoded images (JPEG, PNG, ...) beside their labels, as Hugging Face and others publish them.

    The images are bytes, or a struct with a field `bytes`. Labels are integers 0..K-1 without gaps, or texts, whose
    alphabetical order numbers them. The test split is another file (`test`), or the rows of `train` whose
    `split_column` is `test_value`, or `test_size` rows of `train` drawn with a constant seed.
    """

    train: str = Field(min_length=1, description="file, or pattern such as data/train-*.parquet, in the data directory")
    test: str | None = Field(default=None, min_length=1, description="file or pattern with the test images")
    test_size: int | None = Field(default=None, ge=1, description="rows of train to set aside for testing")
    split_column: str | None = Field(default=None, description="column of train that says which split a row belongs to")
    train_value: str | int | None = Field(default=None, description="what split_column holds in training rows")
    test_value: str | int | None = Field(default=None, description="what split_column holds in test rows")
    image_column: str = Field(default="image", description="column of encoded images")
    label_column: str = Field(default="label", description="column of labels, integers or texts")
    size: int | None = Field(
        default=None, ge=4, le=1024, description="height and width to resize to; null: all must agree"
    )
    channels: Literal[1, 3] = Field(default=3, description="1 converts to grayscale, 3 to colour")
    mean: Mean = IMAGENET_MEAN
    std: Deviation = IMAGENET_STD
    validation_size: ValidationSize = 1_000

    @model_validator(mode="after")
    def _has_one_test_split(self) -> ImageParquet:
        mistakes = []
        if sum(value is not None for value in (self.test, self.test_value, self.test_size)) != 1:
            mistakes.append("the test split needs exactly one of test (a file), test_value and test_size")
        if (self.split_column is None) != (self.train_value is None):
            mistakes.append("split_column and train_value go together")
        if self.test_value is not None and self.split_column is None:
            mistakes.append("test_value needs split_column and train_value")
        if self.test_value is not None and self.test_value == self.train_value:
            mistakes.append(f"train_value and test_value are both {self.test_value!r}: the test split must be disjoint")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def sources(self, part: Part) -> Sequence[Path]:
        # The test part depends on the training files too: they decide the classes, and which rows are left for it.
        patterns = [self.train] if part == "train" or self.test is None else [self.train, self.test]
        if self.test is not None and set(_files(self.train)) & set(_matching(self.test)):
            raise DataError(f"{self.train} and {self.test} share a file: the test split must be disjoint from training")
        return [file for pattern in patterns for file in _files(pattern)]

    def decode(self, part: Part) -> Decoded:
        training = self._rows(self.train, self.train_value)
        classes = self._classes(training)
        rows = self._part(part, training)
        labels = np.concatenate([self._numbered(entry, classes) for entry in rows])
        return Decoded(self._images(rows), labels, len(classes))

    def _part(self, part: Part, training: list[_Rows]) -> list[_Rows]:
        if self.test_size is not None:
            return self._drawn(part, training, self.test_size)
        if part == "train":
            return training
        return self._rows(self.test or self.train, self.test_value)

    def _drawn(self, part: Part, training: list[_Rows], test_size: int) -> list[_Rows]:
        total = sum(len(entry.numbers) for entry in training)
        if test_size >= total:
            raise DataError(
                f"{data_directory() / self.train}: test_size={test_size:,} of {total:,} rows leaves none to train on"
            )
        is_test = np.zeros(total, dtype=bool)
        is_test[torch.randperm(total, generator=generator(0, "image_parquet", "test"))[:test_size].numpy()] = True
        ends = np.cumsum([len(entry.numbers) for entry in training])
        kept = np.split(is_test if part == "test" else ~is_test, ends[:-1])
        return [
            _Rows(rows.file, rows.numbers[keep], rows.labels[keep]) for rows, keep in zip(training, kept, strict=True)
        ]

    def _rows(self, pattern: str, value: str | int | None) -> list[_Rows]:
        """The rows of the files, or those whose `split_column` is `value`. Raises DataError if there are none."""
        rows = [self._selected(file, value) for file in _files(pattern)]
        if not any(len(entry.numbers) for entry in rows):
            where = (
                "" if value is None else f" where column '{self.split_column}' is '{value}'{self._nearest(rows, value)}"
            )
            raise DataError(f"{rows[0].file}: no row{where}")
        return rows

    def _selected(self, file: Path, value: str | int | None) -> _Rows:
        _refuse_lacking(file, [self.image_column, self.label_column, self.split_column or self.label_column])
        labels = self._labels(file)
        numbers = np.arange(len(labels))
        if value is not None and self.split_column is not None:
            numbers = np.flatnonzero([given == value for given in _column(file, self.split_column).to_pylist()])
        return _Rows(file, numbers, labels[numbers])

    def _nearest(self, rows: list[_Rows], value: str | int) -> str:
        given = {str(held) for entry in rows for held in _column(entry.file, str(self.split_column)).to_pylist()}
        return f"; among those that occur are {', '.join(get_close_matches(str(value), given, n=5, cutoff=0))}"

    def _labels(self, file: Path) -> NDArray[Any]:
        """[rows] int64 or text."""
        column = _column(file, self.label_column)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if not is_text and not pa.types.is_integer(column.type):
            kind = f"column '{self.label_column}' holds {column.type}"
            raise DataError(f"{file}: {kind}; labels must be integers or texts")
        if column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise DataError(f"{file}: column '{self.label_column}', row {row}: no label")
        labels = column.to_pylist()
        for row in [row for row, label in enumerate(labels) if not is_text and label >= 2**63]:
            where = f"{file}: column '{self.label_column}', row {row}"
            raise DataError(f"{where}: label {labels[row]} is no class's number")
        return np.array(labels, dtype=np.str_ if is_text else np.int64)

    def _classes(self, training: list[_Rows]) -> NDArray[Any]:
        """The label values in the order of their numbers."""
        kinds = {entry.labels.dtype.kind for entry in training}
        if len(kinds) > 1:
            column = f"{data_directory() / self.train}: column '{self.label_column}'"
            raise DataError(f"{column} is text in some files and integer in others")
        values = np.unique(np.concatenate([entry.labels for entry in training]))
        if kinds == {"i"} and not np.array_equal(values, np.arange(len(values))):
            missing = next(number for number in range(len(values) + 1) if number not in values)
            given = f"{len(values)} labels between {values[0]} and {values[-1]}"
            text = f"must be integers from 0 without gaps, got {given}: {missing} is missing"
            raise DataError(f"{data_directory() / self.train}: column '{self.label_column}' {text}")
        return values

    def _numbered(self, rows: _Rows, classes: NDArray[Any]) -> NDArray[np.int64]:
        same_kind = rows.labels.dtype.kind == classes.dtype.kind
        is_known = np.isin(rows.labels, classes) if same_kind else np.zeros(len(rows.labels), dtype=bool)
        if not is_known.all():
            first = int(np.flatnonzero(~is_known)[0])
            where = f"{rows.file}: column '{self.label_column}', row {rows.numbers[first]}"
            raise DataError(f"{where}: label '{rows.labels[first]}' is none of the training part's {len(classes)}")
        return np.searchsorted(classes, rows.labels).astype(np.int64)

    def _images(self, rows: Sequence[_Rows]) -> Iterator[Image]:
        shape: tuple[int, ...] = ()
        for where, image in in_threads(self._picture, self._encoded(rows)):
            shape = shape or image.shape
            if image.shape != shape:
                sizes = f"{image.shape[1]}x{image.shape[2]} where the first image is {shape[1]}x{shape[2]}"
                raise DataError(f"{where}: {sizes}; give `size` to resize all to one")
            yield image

    def _picture(self, item: tuple[str, bytes]) -> tuple[str, Image]:
        where, encoded = item
        return where, picture(io.BytesIO(encoded), self.channels, self._resize, where)

    def _resize(self, image: PillowImage.Image) -> PillowImage.Image:
        if self.size is None or image.size == (self.size, self.size):
            return image
        return image.resize((self.size, self.size), PillowImage.Resampling.BILINEAR)

    def _encoded(self, rows: Sequence[_Rows]) -> Iterator[tuple[str, bytes]]:
        """Where each image stands, and its bytes, some hundred rows in memory at a time."""
        for entry in rows:
            wanted = set(entry.numbers.tolist())
            for number, encoded in enumerate(self._cells(entry.file)):
                if number not in wanted:
                    continue
                where = f"{entry.file}: column '{self.image_column}', row {number}"
                if encoded is None:
                    raise DataError(f"{where}: no image bytes")
                yield where, encoded

    def _cells(self, file: Path) -> Iterator[bytes | None]:
        with _opened(file) as opened:
            kind = opened.schema_arrow.field(self.image_column).type
            is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            content = kind.field("bytes").type if is_struct else kind
            if not (pa.types.is_binary(content) or pa.types.is_large_binary(content)):
                allowed = "encoded images as binary, or as a struct with a binary field 'bytes'"
                raise DataError(f"{file}: column '{self.image_column}' holds {kind}; it must hold {allowed}")
            for batch in opened.iter_batches(batch_size=256, columns=[self.image_column]):
                column = batch.column(0)
                yield from (pc.struct_field(column, "bytes") if is_struct else column).to_pylist()


def _files(pattern: str) -> list[Path]:
    """The files that a path or pattern names, sorted. Raises DataError if there are none."""
    files = _matching(pattern)
    if not files:
        path = data_directory() / pattern
        raise DataError(f"{path}: no such file; set SWEEP_DATA_DIR to the folder that holds '{pattern}'")
    return files


def _matching(pattern: str) -> list[Path]:
    path = data_directory() / pattern
    return [path] if path.is_file() else sorted(path.parent.glob(path.name))


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The file. Raises DataError as soon as something in it is damaged."""
    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a readable Parquet file ({' '.join(str(error).split())})") from error


def _refuse_lacking(file: Path, columns: Iterable[str]) -> None:
    """Raise DataError that names every column that the file has not."""
    with _opened(file) as opened:
        names = opened.schema_arrow.names
    if absent := [unknown("column", column, names) for column in sorted(set(columns)) if column not in names]:
        raise DataError(f"{file}: {'; '.join(absent)}")


def _column(file: Path, column: str) -> Any:
    with _opened(file) as opened:
        return opened.read(columns=[column]).column(0)
