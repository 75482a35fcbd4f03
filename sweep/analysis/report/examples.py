"""Adversarial examples to look at: the image, what was done to it, what came of it, and where the network looks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sweep.analysis.probes import Probe

SHOWN = 4  # images, the same for every network
_WIDEST = 112  # pixels of a picture's longer side in the page
_RED, _BLUE = np.array([0.84, 0.37, 0.0]), np.array([0.0, 0.45, 0.70])  # raised, lowered: the palette's own


@dataclass(frozen=True)
class Strip:
    """One image under one network. Pictures are PNG as data URIs."""

    pictures: tuple[str, ...]  # original, perturbation, adversarial, saliency
    before: str  # what the network says of the original, and how sure it is
    after: str
    is_broken: bool
    was_right: bool


@dataclass(frozen=True)
class Exhibit:
    """One network and its strips."""

    name: str
    attack: str
    strips: list[Strip]


def exhibits(contenders: Mapping[int, Sequence[Probe]]) -> list[Exhibit]:
    """The best network of each defense, on the same images."""
    by_defense: dict[str, Probe] = {}
    for probes in contenders.values():
        by_defense.setdefault(probes[0].trained.defense, probes[0])
    if not by_defense:
        return []
    shown = _telling(next(iter(by_defense.values())))
    return [
        Exhibit(probe.trained.label, probe.attack, [_strip(probe, place) for place in shown])
        for probe in by_defense.values()
    ]


def _telling(probe: Probe) -> list[int]:
    """As many that this network withstands as that it does not, where there are; those it gets right anyway first."""
    (before, _), (after, _) = probe.predictions
    right = before == probe.labels
    broken = [place for place in range(len(right)) if right[place] and after[place] != probe.labels[place]]
    held = [place for place in range(len(right)) if right[place] and after[place] == probe.labels[place]]
    rest = [place for place in range(len(right)) if not right[place]]
    half = SHOWN // 2
    return sorted([*held[:half], *broken[:half], *held[half:], *broken[half:], *rest][:SHOWN])


def _strip(probe: Probe, place: int) -> Strip:
    original, adversarial = probe.originals[place], probe.adversarial[place]
    offset = adversarial - original
    scaled = offset / offset.abs().amax().clamp_min(1e-6)
    label = int(probe.labels[place])
    (before, sure), (after, still_sure) = (prediction[:, place].tolist() for prediction in probe.predictions)
    pictures = (_pixels(original), _signed(scaled), _pixels(adversarial), _signed(probe.saliency[place]))
    return Strip(
        pictures=tuple(_data_uri(picture) for picture in pictures),
        before=f"{before:.0f} ({sure:.2f})",
        after=f"{after:.0f} ({still_sure:.2f})",
        is_broken=int(after) != label,
        was_right=int(before) == label,
    )


def _pixels(image: Tensor) -> NDArray[np.float64]:
    """[C, H, W] in [0, 1] -> [H, W, 3]."""
    return np.asarray(image.expand(3, -1, -1).movedim(0, 2).double().clamp(0, 1))


def _signed(values: Tensor) -> NDArray[np.float64]:
    """[C, H, W] in [-1, 1] -> [H, W, 3]: white where nothing is changed, red where it is raised, blue where lowered;
    of several channels the one that is changed most."""
    place = values.abs().argmax(0, keepdim=True)
    strongest = np.asarray(torch.gather(values, 0, place)[0].double())[..., None]
    colour = np.where(strongest > 0, _RED, _BLUE)
    shades: NDArray[np.float64] = 1 - np.abs(strongest) * (1 - colour)
    return shades


def _data_uri(picture: NDArray[np.float64]) -> str:
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    image.thumbnail((_WIDEST, _WIDEST))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
