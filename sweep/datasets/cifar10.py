from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sweep.datasets.base import Dataset, Deviation, Mean, Part, ValidationSize, data_directory, found_or_downloaded
from sweep.datasets.cache import Decoded
from sweep.errors import DataError
from sweep.models.vision import torchvision
from sweep.registry import register

_FOLDER = "cifar-10-batches-py"
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


@register("cifar10")
class CIFAR10(Dataset):
    """Photographs of ten kinds of things, 32x32 colour (Krizhevsky 2009): 50,000 training and 10,000 test images.

    torchvision's layout, `cifar-10-batches-py/`, is looked for in the data directory and in its `cifar10/`, and is
    downloaded where it is absent. The batches are pickles, so torchvision's MD5 check precedes reading them.
    """

    mean: Mean = (0.4914, 0.4822, 0.4465)
    std: Deviation = (0.2470, 0.2435, 0.2616)
    validation_size: ValidationSize = 5_000

    def sources(self, part: Part) -> Sequence[Path]:
        root = data_directory()
        folders = [root / _FOLDER, root / "cifar10" / _FOLDER]
        return found_or_downloaded(
            "cifar10",
            lambda: _find(folders, part),
            folders,
            lambda: torchvision().datasets.CIFAR10(root, download=True),
        )

    def decode(self, part: Part) -> Decoded:
        folder = self.sources(part)[0].parent
        try:
            source = torchvision().datasets.CIFAR10(folder.parent, train=part == "train")
        except RuntimeError as error:
            raise DataError(f"{folder}: {error}; delete the folder to have it downloaded again") from error
        images = np.asarray(source.data, dtype=np.uint8).transpose(0, 3, 1, 2)  # from [N, H, W, C]
        return Decoded(images, np.asarray(source.targets, dtype=np.int64), classes=10)


def _find(folders: Sequence[Path], part: Part) -> list[Path]:
    for folder in folders:
        batches = [folder / name for name in _BATCHES[part]]
        if all(batch.is_file() for batch in batches):
            return batches
    return []
