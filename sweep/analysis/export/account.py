"""The figures of what was chosen, with intervals: of the network itself, and of its configuration's fresh seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sweep.analysis.export.chosen import Chosen
from sweep.analysis.statistics import Interval, analyse, binomial
from sweep.attacks import Attack
from sweep.checkpoint import load_weights
from sweep.configuration import TrialConfig
from sweep.orchestration.evidence import proven
from sweep.seeding import derive
from sweep.trial import VERDICTS

_WORST = "worst_case"


@dataclass(frozen=True)
class Figures:
    """Accuracies on a split, in [0, 1], each with its 95 % interval, by attack: "clean", labels, "worst case"."""

    split: str
    images: int
    seeds: int
    accuracies: dict[str, Interval]


def of_network(chosen: Chosen, config: TrialConfig) -> list[Figures]:
    """This one network's, on each split that it was judged on: Wilson's intervals, over images alone."""
    found = []
    for split in ("validation", "test"):
        values = dict(_accuracies(chosen.trial.final, split, attacks(config)))
        if values:
            images = _images(chosen, config, split)
            found.append(Figures(split, images, 1, {name: wilson(value, images) for name, value in values.items()}))
    return found


def of_seeds(chosen: Chosen) -> Figures | None:
    """The configuration's, over every fresh seed that was trained: bootstrap intervals, over seeds and images.

    A diverged training is right about nothing, in every row: it is one of the seeds, and left out would flatter.
    """
    candidate, confirmation = chosen.candidate, chosen.confirmation
    if candidate is None or confirmation is None:
        return None
    confirms = confirmation.folder.study().confirms
    assert confirms is not None
    place = confirms.trials.index(candidate.number)
    trainings = [
        proven(confirmation.folder, trial, VERDICTS)
        for trial in confirmation.folder.ledger()
        if trial.number % len(confirms.trials) == place and trial.end == "completed"
    ]
    rows = [load_weights(training) for training in trainings]
    rows += [{name: torch.zeros_like(held) for name, held in rows[0].items()}] * candidate.ends.count("diverged")
    labels = [attack.label for attack in confirms.attacks]
    rng = np.random.default_rng(derive(confirmation.folder.study().seed, "export"))
    intervals, _ = analyse([np.stack([row[label].numpy() for row in rows]) for label in labels], rng)
    attacked = dict(zip(labels, intervals, strict=True))
    accuracies = {"clean": candidate.clean, **attacked, "worst case": candidate.worst_case}
    return Figures("test", len(rows[0]["clean"]), len(rows), accuracies)


def attacks(config: TrialConfig) -> list[Attack]:
    """Every attack that judged the network, each once."""
    return list(dict.fromkeys((*config.validation_attacks, *config.final_attacks, *config.test_attacks)))


def wilson(fraction: float, images: int) -> Interval:
    """A fraction of so many images with Wilson's 95 % interval."""
    return Interval(fraction, *binomial(fraction, images))


def _accuracies(final: Mapping[str, float], split: str, judges: list[Attack]) -> Iterator[tuple[str, float]]:
    names = {"clean": f"{split}/clean_accuracy"}
    names |= {judge.label: f"{split}/{judge.label}/adversarial_accuracy" for judge in judges}
    names["worst case"] = f"{split}/{_WORST}/adversarial_accuracy"
    return ((what, final[name]) for what, name in names.items() if name in final)


def _images(chosen: Chosen, config: TrialConfig, split: str) -> int:
    if split == "validation":
        return config.dataset.validation_size
    return len(load_weights(_verdicts(chosen))["clean"])


def _verdicts(chosen: Chosen) -> Path:
    return chosen.folder.trial(chosen.trial.number) / VERDICTS
