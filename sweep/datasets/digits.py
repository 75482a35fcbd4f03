from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sweep.datasets.base import Dataset, Deviation, Mean, Part, ValidationSize
from sweep.datasets.cache import Decoded
from sweep.registry import register
from sweep.seeding import generator

_TEST_SIZE = 300


@register("digits")
class Digits(Dataset):
    """1,797 real handwritten digits, 8x8 grayscale, that come with scikit-learn (UCI, Alpaydin and Kaynak 1998).

    1,197 training, 300 validation and 300 test images. It needs no file and no network. The source has no test part:
    ours is drawn with a constant seed, so that it is the same 300 images whatever `split_seed` is.
    """

    mean: Mean = (0.305,)
    std: Deviation = (0.376,)
    validation_size: ValidationSize = 300

    def sources(self, part: Part) -> Sequence[Path]:
        return ()

    def decode(self, part: Part) -> Decoded:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - takes seconds, once a machine

        source = load_digits()
        order = torch.randperm(len(source.target), generator=generator(0, "digits", "test")).numpy()
        chosen = np.sort(order[:_TEST_SIZE] if part == "test" else order[_TEST_SIZE:])
        images = np.round(source.images[chosen] * (255 / 16)).astype(np.uint8)  # the source's values are 0..16
        return Decoded(images[:, None], source.target[chosen].astype(np.int64), classes=10)
