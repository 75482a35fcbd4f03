"""Checks of the account itself: what was measured, by whom, and whether anyone ever published the like."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sweep.attacks.base import wrong
from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.evaluation import evaluate, fraction
from sweep.models.network import Network
from sweep.registry import validated
from sweep.threat_models import ThreatModel
from sweep.validity.base import check
from sweep.validity.subject import Subject

ANCHORS = Path(__file__).with_name("anchors.json")
_ALONE = 8  # images that are attacked one by one
_AT_ONCE = 1000  # images that are brought to the CPU
_SAME_RADIUS = 1.05  # .031 and 8 / 255 are one radius to a comparison


@check(
    "V1",
    "budget",
    figure="pixel units by which an attack's points leave the ball or [0, 1], not-a-number counting as 1",
    reason="Points outside of the threat model prove nothing about it.",
    remedy="Mend the attack's projection.",
    source="AutoAttack, final check (Croce & Hein 2020)",
    suspect=1e-5,
)
def budget(subject: Subject) -> float:
    return max(subject.verdicts.strays.values(), default=0.0)


@check(
    "V20",
    "nothing found is lost",
    figure="of the images that withstood the judge were misclassified on its way, inside the ball",
    reason="A success on the path counts, not only the last iterate.",
    remedy="Let the attack keep the first misclassified point.",
    source="indicator of failure F2, silent success (Pintor et al. 2022)",
    passes=lambda judge: _ALONE * judge.gradient_evaluations / 100,
    suspect=0.0,
)
def silent_success(subject: Subject) -> float | None:
    rows = subject.held(subject.judge).nonzero().squeeze(1)[:_ALONE]
    if not len(rows):
        return None
    return sum(_lost_on_the_way(subject, int(row)) for row in rows) / len(rows)


@check(
    "V24",
    "plausibility",
    figure="above every published network (the nearer of clean and adversarial accuracy, two standard errors off)",
    reason="Nobody has published as much at this radius; such figures were broken whenever they were looked into.",
    remedy="Confirm with auto_attack and validity='full' before believing it.",
    source="anchors.json, each with its source; the thresholds are ours",
    arises=lambda config: bool(comparable(config)),
    investigate=0.02,
    suspect=0.04,
)
def plausibility(subject: Subject) -> float:
    clean, robust = (
        _at_least(flags) for flags in (subject.verdicts.clean, subject.verdicts.robust[subject.judge.label])
    )
    return min(
        max(clean - float(anchor["clean"]), robust - float(anchor["adversarial"]))
        for anchor in comparable(subject.config)
    )


@check(
    "V25",
    "a full account",
    figure="parts of the configuration that its JSON does not bring back",
    reason="A figure whose attack, radius, seed and mode are not on record cannot be checked by anyone.",
    remedy="Let every parameter be a field of its component.",
    source="Carlini et al. 2019, section 3.3",
    suspect=0,
)
def account(subject: Subject) -> float:
    told = subject.config.to_json()
    again = validated(TrialConfig, told, "the configuration as recorded").to_json()
    return len([name for name, value in told.items() if again.get(name) != value])


@check(
    "V28",
    "enough images",
    figure="standard error of an accuracy of one half, on as many images as the validation split has",
    reason="Of many trials the luckiest wins; on few images chance decides more than the networks do.",
    remedy="Hold out more images (dataset.validation_size): 100 keep it at 0.05, 2,500 at 0.01.",
    source="the binomial distribution; the thresholds, 100 and 25 images, are ours",
    investigate=0.05,
    suspect=0.1,
)
def enough(subject: Subject) -> float:
    return 0.5 / math.sqrt(len(subject.verdicts.labels))


@check(
    "V29",
    "held-out images held out",
    figure="of the validation images are training images (or, where the test images are opened, of these training or "
    "validation images), pixel by pixel",
    reason="What a network was trained on, or chosen by, says nothing of what it does to other images.",
    remedy="Part the data anew, with each image (and its copies) in one split only.",
    source="Carlini et al. 2019, section 3.1; the thresholds are ours",
    investigate=0.01,
    suspect=0.05,
)
def held_out(subject: Subject) -> float | None:
    if subject.known is None:
        return None
    seen, shares = set(_digests(subject.known.train)), []
    for split in subject.known.held_out:  # the test images must be new to the search, too, which saw the validation's
        digests = list(_digests(split))
        shares.append(sum(digest in seen for digest in digests) / len(digests))
        seen.update(digests)
    return max(shares)


def comparable(config: TrialConfig) -> list[dict[str, Any]]:
    """The published networks on this dataset, judged at this radius or a smaller one: of this model where there are
    any, or else all."""
    threat_model = config.threat_model
    there = [
        anchor
        for anchor in anchors()
        if anchor["dataset"] == config.dataset.name
        and anchor["threat_model"] == threat_model.name
        and anchor["epsilon"] <= threat_model.epsilon * _SAME_RADIUS
    ]
    return [anchor for anchor in there if config.model.name in anchor["models"]] or there


def _digests(split: Split) -> Iterator[bytes]:
    """Of every image's pixels: 16 bytes in place of thousands."""
    for start in range(0, len(split), _AT_ONCE):
        for image in split.images[start : start + _AT_ONCE].cpu().contiguous().numpy():
            yield blake2b(image, digest_size=16).digest()


def _at_least(flags: Tensor) -> float:
    """A fraction less two of its standard errors."""
    found = fraction(flags)
    return found - 2 * math.sqrt(found * (1 - found) / len(flags))


@cache
def anchors() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ANCHORS.read_text())["anchors"]
    return found


def _lost_on_the_way(subject: Subject, row: int) -> bool:
    """Whether the judge, alone with an image, meets a misclassified point of the ball and does not bring it home."""
    alone = Split(subject.split.images[row : row + 1], subject.split.labels[row : row + 1])
    with _met(subject.network, alone, subject.config.threat_model) as met:
        verdicts = evaluate(subject.network, alone, [subject.judge], subject.config.threat_model, subject.config.seed)
    return any(met) and bool(verdicts.worst_case)


@contextmanager
def _met(network: Network, alone: Split, threat_model: ThreatModel) -> Iterator[list[bool]]:
    """Notes of each of the network's answers whether it was wrong about a point within the ball around the image."""
    image, met = alone.pixels(slice(None)), list[bool]()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        inside = float(threat_model.distance(inputs[0].detach(), image).amax()) <= threat_model.epsilon + 1e-6
        met.append(inside and bool(wrong(logits.detach(), alone.labels).any()))

    hook = network.register_forward_hook(note)
    try:
        yield met
    finally:
        hook.remove()
