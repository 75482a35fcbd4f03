from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweep.datasets.base import Dataset, Deviation, Mean, Part, ValidationSize, data_directory, found_or_downloaded
from sweep.datasets.cache import Decoded
from sweep.errors import DataError
from sweep.models.vision import torchvision
from sweep.registry import register

_PREFIX = {"train": "train", "test": "t10k"}


@register("mnist")
class MNIST(Dataset):
    """Handwritten digits, 28x28 grayscale (LeCun et al. 1998): 60,000 training and 10,000 test images.

    The four official idx files, plain or as .gz, are looked for in the data directory's `mnist/` and, where torchvision
    puts them, `MNIST/raw/`. Where they are absent, torchvision downloads them.
    """

    mean: Mean = (0.1307,)
    std: Deviation = (0.3081,)
    validation_size: ValidationSize = 5_000

    def sources(self, part: Part) -> Sequence[Path]:
        root = data_directory()
        folders = [root / "mnist", root / "MNIST" / "raw"]
        return found_or_downloaded(
            "mnist", lambda: _find(folders, part), folders, lambda: torchvision().datasets.MNIST(root, download=True)
        )

    def decode(self, part: Part) -> Decoded:
        images_file, labels_file = self.sources(part)
        images, labels = read_idx(images_file, dimensions=3), read_idx(labels_file, dimensions=1)
        if len(images) != len(labels) or labels.max(initial=0) > 9:
            problem = f"{len(labels):,} labels up to {labels.max(initial=0)} for {len(images):,} images"
            raise DataError(f"{labels_file}: {problem}; expected one label in 0..9 for each image")
        return Decoded(images[:, None], labels.astype(np.int64), classes=10)


def _find(folders: Sequence[Path], part: Part) -> list[Path]:
    """The images' and the labels' file from the first folder that has both, else nothing."""
    names = [f"{_PREFIX[part]}-images-idx3-ubyte", f"{_PREFIX[part]}-labels-idx1-ubyte"]
    for folder in folders:
        candidates = [[folder / name, folder / f"{name}.gz"] for name in names]
        found = [next((path for path in pair if path.is_file()), None) for pair in candidates]
        if all(found):
            return [path for path in found if path is not None]
    return []


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes: 0, 0, 8, the number of dimensions, each size (big-endian int32), the values."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not a readable gzip file ({error}); delete it to have it downloaded again") from error
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(
            f"{path}: not an idx file of bytes in {dimensions} dimensions; delete it and fetch the official one"
        )
    shape = np.frombuffer(content, dtype=">i4", offset=4, count=dimensions).tolist()
    values = np.frombuffer(content, dtype=np.uint8, offset=header)
    if values.size != np.prod(shape):
        raise DataError(
            f"{path}: announces {shape} values and holds {values.size:,}; delete it and fetch the official one"
        )
    return values.reshape(shape)
