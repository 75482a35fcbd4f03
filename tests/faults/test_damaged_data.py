"""Damaged pictures and Parquet files, any byte of them: a sentence with the path, or pictures; never anything else."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from sweep.datasets.base import picture
from sweep.datasets.image_parquet import ImageParquet
from sweep.errors import DataError

MANY = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def encoded(form: str) -> bytes:
    content = io.BytesIO()
    PillowImage.fromarray(PIXELS).save(content, form)
    return content.getvalue()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The content cut off somewhere, or with a few bits turned."""
    content = bytearray(whole)
    if draw(st.booleans()):
        return bytes(content[: draw(st.integers(0, len(content) - 1))])
    for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def reads_or_explains(read: Callable[[], object], where: str) -> None:
    try:
        read()
    except DataError as error:
        assert str(error).startswith(where) and "\n" not in str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of TIFF tags that it passes over
@MANY
@given(st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP"]).flatmap(lambda form: damaged(encoded(form))))
def test_a_damaged_picture(content: bytes) -> None:
    reads_or_explains(lambda: picture(io.BytesIO(content), 3, lambda image: image, "row 7"), "row 7: not a")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_DATA_DIR", str(tmp_path))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [encoded("PNG")] * 20, "label": [0, 1] * 10}), path)
    return path


DATASET = ImageParquet(train="a.parquet", test_size=2, validation_size=2)


def decoded() -> list[object]:
    return list(DATASET.decode("train").images)


@MANY
@given(data=st.data())
def test_a_damaged_parquet_file(table: Path, data: st.DataObject) -> None:
    whole = table.read_bytes()
    table.write_bytes(data.draw(damaged(whole)))
    try:
        reads_or_explains(decoded, str(table.parent))
    finally:
        table.write_bytes(whole)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (pa.array([0] * 13 + [2**63] + [1] * 6, pa.uint64()), "row 13: label 9223372036854775808 is no class's number"),
        (pa.array([0, 1, None, 1] * 5), "row 2: no label"),
        (pa.array([0.0, 1.0] * 10), "labels must be integers or texts"),
        (pa.array([1, 2] * 10), "must be integers from 0 without gaps"),
    ],
)
def test_labels_that_number_no_class(table: Path, labels: pa.Array, said: str) -> None:
    pq.write_table(pa.table({"image": [encoded("PNG")] * 20, "label": labels}), table)
    with pytest.raises(DataError, match=said) as refused:
        decoded()
    assert "a.parquet: column 'label'" in str(refused.value)
