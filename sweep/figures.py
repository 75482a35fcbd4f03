"""Running figures of one training epoch, and the names of everything that a trial reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sweep.alpha_rules import Measurement
from sweep.attacks import Attack
from sweep.defenses import Losses
from sweep.errors import Diverged


@dataclass
class Figures:
    """Running sums of one epoch. Sums stay on the device; reading them waits for it, so they are read seldom."""

    alpha: float = 0.0
    epsilon: float = 0.0
    learning_rate: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, losses: Losses) -> None:
        self._add("train/loss", losses.total.detach()[None])
        for name in ("clean", "adversarial"):
            self._add(f"train/{name}_loss", getattr(losses, name))
            self._add(f"train/{name}_accuracy", getattr(losses, f"{name}_correct"))

    def _add(self, name: str, values: Tensor | None) -> None:
        if values is not None and len(values):
            sum_ = values.double().sum()
            self.sums[name] = self.sums[name] + sum_ if name in self.sums else sum_
            self.counts[name] = self.counts.get(name, 0) + len(values)

    @property
    def total_loss(self) -> float:
        return float(self.sums["train/loss"])

    def mean(self, name: str) -> float:
        """NaN where the defense never computed it."""
        return float(self.sums[name]) / self.counts[name] if name in self.counts else math.nan

    def metrics(self) -> dict[str, float]:
        means = {name: self.mean(name) for name in self.sums}
        return means | {"epsilon": self.epsilon, "alpha": self.alpha, "learning_rate": self.learning_rate}

    def measurement(self) -> Measurement:
        return Measurement(
            clean_accuracy=self.mean("train/clean_accuracy"),
            adversarial_accuracy=self.mean("train/adversarial_accuracy"),
            clean_loss=self.mean("train/clean_loss"),
            adversarial_loss=self.mean("train/adversarial_loss"),
        )


def refuse_non_finite(metrics: Mapping[str, float], when: str) -> None:
    """Raise Diverged where a metric is infinite or not a number: nothing that is reported can be either."""
    names = [name for name, value in metrics.items() if not math.isfinite(value)]
    if names:
        raise Diverged(f"not finite {when}: {', '.join(names)}")


def metric_names(attacks: Iterable[Attack]) -> set[str]:
    """Every metric of an epoch that an objective may name, given the validation attacks.

    None of the training part's: those are taken at the radius, and by the attack, that the trial itself chose.
    """
    labels = [label for attack in attacks for label in attack.labels]
    names = {"validation/clean_accuracy", "validation/clean_loss"}
    names |= {f"validation/{label}/adversarial_accuracy" for label in labels}
    if len(labels) > 1:
        names.add("validation/worst_case/adversarial_accuracy")
    return names | {"gradient_evaluations", "seconds", "peak_memory_mb"}
