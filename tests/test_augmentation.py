"""Augmentation: shifts and mirror images, by hand and in their frequencies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sweep.augmentation import augment


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 6, 5, generator=stream(1))


def candidates(image: Tensor, mirrored: bool) -> dict[tuple[int, int, bool], Tensor]:
    """Every crop that an image can become."""
    padded = F.pad(image, [4] * 4)
    found = {}
    for row in range(9):
        for column in range(9):
            crop = padded[:, row : row + 6, column : column + 5]
            found[row, column, False] = crop
            if mirrored:
                found[row, column, True] = crop.flip(2)
    return found


def identified(before: Tensor, after: Tensor, mirrored: bool) -> list[tuple[int, int, bool]]:
    """Which crop each image became: exactly one, as the pixels are random."""
    keys = []
    for image, result in zip(before, after, strict=True):
        found = [key for key, crop in candidates(image, mirrored).items() if torch.equal(crop, result)]
        assert len(found) == 1, found
        keys += found
    return keys


def test_none_changes_nothing() -> None:
    assert torch.equal(augment(images(3), "none", stream()), images(3))


def test_crop_shifts_each_image_by_up_to_four_pixels_each_way() -> None:
    keys = identified(images(400), augment(images(400), "crop", stream()), mirrored=False)
    rows, columns = ([key[axis] for key in keys] for axis in (0, 1))
    for shifts in (rows, columns):
        assert set(shifts) == set(range(9))
        assert max(shifts.count(shift) for shift in range(9)) < 80, "about 44 of 400 each"
    assert len(set(zip(rows, columns, strict=True))) > 60, "rows and columns are drawn apart"


def test_crop_flip_also_mirrors_half_of_them() -> None:
    keys = identified(images(200), augment(images(200), "crop_flip", stream()), mirrored=True)
    assert 70 < sum(key[2] for key in keys) < 130


def test_a_stream_gives_the_same_images_again_and_another_different_ones() -> None:
    first, again, other = (augment(images(20), "crop_flip", stream(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_is_stacked_in_channels_moves_together() -> None:
    both = augment(torch.cat([images(20), 1 - images(20)], 1), "crop_flip", stream())
    inside = both[:, :3] != 0
    assert torch.allclose((both[:, :3] + both[:, 3:])[inside], torch.ones(1))
    assert torch.equal(both[:, :3], augment(images(20), "crop_flip", stream()))
