from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image as PillowImage
from pydantic import Field

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
from sweep.errors import DataError
from sweep.registry import register

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
_FOLDERS = {"train": "train", "test": "val"}
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=2)]


@register("image_folder")
class ImageFolder(Dataset):
    """ImageNet's layout: `<folder>/train/<class>/*.jpg` and `<folder>/val/<class>/*.jpg`, colour.

    The source's `val` is our test split; validation is held out of `train`. Each image's shorter side is resized to
    `size` and the centre kept. Labels number the classes in alphabetical order.
    """

    folder: str = Field(min_length=1, description="under the data directory, or absolute")
    size: int = Field(default=224, ge=4, le=1024, description="height and width in pixels")
    classes: Names | None = Field(default=None, description="names of the class folders to use; null uses all")
    mean: Mean = IMAGENET_MEAN
    std: Deviation = IMAGENET_STD
    validation_size: ValidationSize = 1_000

    def sources(self, part: Part) -> Sequence[Path]:
        return [path for path, _ in self._labelled(part)]

    def decode(self, part: Part) -> Decoded:
        labelled = self._labelled(part)
        images = in_threads(self._picture, [path for path, _ in labelled])
        return Decoded(images, np.array([label for _, label in labelled], dtype=np.int64), len(self._classes()))

    def _labelled(self, part: Part) -> list[tuple[Path, int]]:
        """Every image of a part with its label, class by class."""
        root, names = self._root(part), self._classes()
        files = {name: sorted(path for path in (root / name).rglob("*") if _is_image(path)) for name in names}
        if empty := [f"'{name}'" for name in names if not files[name]]:
            raise DataError(f"{root}: no image of class {' and '.join(empty)} ({', '.join(sorted(_SUFFIXES))})")
        return [(path, label) for label, name in enumerate(names) for path in files[name]]

    def _classes(self) -> list[str]:
        """The classes' names in the order of their labels, which the training part decides."""
        root = self._root("train")
        found = sorted(path.name for path in root.iterdir() if path.is_dir())
        absent = [
            f"no class folder '{name}' (the nearest of its {len(found)}: "
            f"{', '.join(get_close_matches(name, found, n=5, cutoff=0))})"
            for name in sorted(set(self.classes or ()) - set(found))
        ]
        if absent:
            raise DataError(f"{root}: {'; '.join(absent)}")
        return sorted(set(self.classes)) if self.classes else found

    def _root(self, part: Part) -> Path:
        root = data_directory() / self.folder / _FOLDERS[part]
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; set SWEEP_DATA_DIR to the folder that holds '{self.folder}'")
        return root

    def _picture(self, path: Path) -> Image:
        return picture(path, 3, self._resize, str(path))

    def _resize(self, image: PillowImage.Image) -> PillowImage.Image:
        scale = self.size / min(image.size)
        width, height = (max(self.size, round(length * scale)) for length in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        resized = image.resize((width, height), PillowImage.Resampling.BILINEAR)
        return resized.crop((left, top, left + self.size, top + self.size))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES
