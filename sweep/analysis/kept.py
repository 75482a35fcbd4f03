"""Networks that a study has kept, and which of them its report looks at.

A report shows the confirmed configurations where there are some, else each defense's best trial; the trials that are
compared at equal cost; and, of each defense that trains within a radius, trials spread over the radii that it tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.analysis.results import best_by_defense
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord
from sweep.trial import WEIGHTS

_SEEDS = 3  # trainings of a confirmed configuration that are looked at: more change the mean little
_RADII = 5  # trials of a defense, spread over its training radii


@dataclass(frozen=True)
class Trained:
    """A trial of the search, or a training of it under another seed in a confirmation."""

    trial: int  # its number in the search
    defense: str
    config: dict[str, Any]
    folder: Path
    files: dict[str, str]  # the SHA-256 of what it left there, as the journal has them
    is_suspect: bool

    @property
    def label(self) -> str:
        """What a figure calls it, and the other trainings of its configuration."""
        return f"{self.defense} ({self.trial}{', suspect' if self.is_suspect else ''})"

    @property
    def weights(self) -> Path:
        """Those that count, as the configuration declares."""
        return self.folder / WEIGHTS[self.config["select"]]

    @property
    def radius(self) -> float | None:
        """Within which it was trained; None where nothing was attacked in training."""
        return trained_radius(self.config)


def trained_radius(config: dict[str, Any]) -> float | None:
    """The radius in a configuration's defense, in [0, 1] pixels; None where it has none."""
    defense = config["defense"]
    return defense.get("epsilon") if isinstance(defense, dict) else None


def of_search(folder: StudyFolder, trials: Iterable[TrialRecord]) -> list[Trained]:
    """The networks of these trials of the search."""
    return [_trained(folder, trial, trial.number) for trial in trials]


def contenders(folder: StudyFolder, study: Study, ledger: Ledger, confirming: StudyFolder | None) -> list[Trained]:
    """Some trainings of each confirmed configuration, in order; without a confirmation, each defense's best trial."""
    confirms = confirming.study().confirms if confirming else None
    if confirming is None or confirms is None:
        return of_search(folder, best_by_defense(ledger, study.objective[0]))
    found: dict[int, list[Trained]] = {number: [] for number in confirms.trials}
    for training in confirming.ledger():
        number, _ = confirms.training(training.number)
        if training.end == "completed" and len(found[number]) < _SEEDS:
            found[number].append(_trained(confirming, training, number))
    return [training for trainings in found.values() for training in trainings]


def across_radii(ledger: Ledger) -> list[TrialRecord]:
    """Completed trials for the matrix of radii: of each defense that trains within one, some of the least to the
    greatest; of each other defense none."""
    by_defense: dict[str, list[TrialRecord]] = {}
    for trial in ledger:
        if trial.end == "completed" and not trial.is_suspect and trained_radius(trial.config):
            by_defense.setdefault(trial.defense, []).append(trial)
    return [
        trial
        for _, trials in sorted(by_defense.items())
        for trial in _spread(sorted(trials, key=lambda trial: trained_radius(trial.config) or 0))
    ]


def _trained(folder: StudyFolder, trial: TrialRecord, number: int) -> Trained:
    there = folder.trial(trial.number)
    return Trained(number, trial.defense, trial.config, there, trial.files, trial.is_suspect)


def _spread(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """At most so many, the first and the last among them, at even distances between."""
    if len(trials) <= _RADII:
        return list(trials)
    return [trials[round(place * (len(trials) - 1) / (_RADII - 1))] for place in range(_RADII)]
