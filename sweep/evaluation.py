"""Clean and adversarial figures of a split under named attacks.

An example is robust to an attack if it is classified correctly where it stands and the attack finds nothing in the
ball. So attacks see only what is still correct, and stop on an example once it is broken. The worst case is taken for
each example, over attacks: mean_x min_a, never the least of the attacks' means (Carlini et al. 2019, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from sweep.alpha_rules import Measurement
from sweep.attacks import Adversary, Attack, cross_entropy
from sweep.attacks.base import misclassified, wrong
from sweep.datasets import Split
from sweep.models.network import Network, View, crafting, viewed
from sweep.seeding import generator
from sweep.threat_models import ThreatModel

BATCH = 500  # fixed: an attack's random starts are drawn batch by batch, so another size would be another attack
_BINS = 15  # of the expected calibration error (Guo et al. 2017)


@dataclass(frozen=True)
class Verdicts:
    """Per example, on the CPU: logits [N, K], labels [N], and for each attack whether the example withstood it [N].

    An attack made of parts also says what was still standing after each: ``auto_attack/apgd_ce``, and so on.
    """

    logits: Tensor
    labels: Tensor
    robust: dict[str, Tensor]
    strays: dict[str, float] = field(default_factory=dict)  # how far outside of the ball or box it went, in pixel units

    @property
    def clean(self) -> Tensor:
        return ~wrong(self.logits, self.labels)

    @property
    def worst_case(self) -> Tensor:
        """[N] booleans: correct where it stands, and under every attack."""
        return torch.stack([self.clean, *self.robust.values()]).all(0)

    def metrics(self, split: str) -> dict[str, float]:
        """Fractions in [0, 1], named ``<split>/<attack>/adversarial_accuracy``."""
        figures = {
            f"{split}/clean_accuracy": fraction(self.clean),
            f"{split}/clean_loss": F.cross_entropy(self.logits, self.labels).item(),
        }
        for label, robust in self.robust.items():
            figures[f"{split}/{label}/adversarial_accuracy"] = fraction(robust)
        if len(self.robust) > 1:
            figures[f"{split}/worst_case/adversarial_accuracy"] = fraction(self.worst_case)
        return figures


def evaluate(
    network: Network, split: Split, attacks: Sequence[Attack], threat_model: ThreatModel, seed: int
) -> Verdicts:
    """Attack a whole split within the threat model. Each batch has a random stream of its own, given by the seed."""
    with crafting(network, "eval"):
        logits = predict(network, split)
        labels = split.labels
        clean = ~wrong(logits, labels)
        robust = {label: clean.clone() for attack in attacks for label in attack.labels}
        strays = dict.fromkeys(robust, 0.0)
        for attack in attacks:
            for start in range(0, len(split), BATCH):
                rows = start + clean[start : start + BATCH].nonzero().squeeze(1)
                if len(rows):
                    images, truth = split.pixels(rows), labels[rows]
                    adversary = adversary_of(threat_model, threat_model.epsilon, seed, attack, start, images.device)
                    for label, points in attack.stages(network, images, truth, adversary):
                        robust[label][rows] = ~misclassified(network, points, truth)
                        strays[label] = max(strays[label], _stray(points, images, threat_model))
    return Verdicts(logits.cpu(), labels.cpu(), {label: held.cpu() for label, held in robust.items()}, strays)


def naive_accuracy(
    network: Network, split: Split, attack: Attack, threat_model: ThreatModel, seed: int, name: str
) -> dict[str, float]:
    """What an attack that is not adapted to the preprocessing would report, ``<name>/<attack>_naive/...``.

    It is made at full strength on the network's `naive` view (see `Preprocessor.naive`: without BPDA and EOT) and then
    judged as every attack is, through the preprocessing. It counts nowhere: its distance from the attack's own
    figure is what the preprocessing hides rather than withstands.
    """
    logits = attacked_logits(network, split, attack, threat_model, threat_model.epsilon, seed, view="naive")
    robust = ~wrong(predict(network, split), split.labels) & ~wrong(logits, split.labels)
    return {f"{name}/{attack.label}_naive/adversarial_accuracy": fraction(robust)}


def measure(
    network: Network, split: Split, attack: Attack, threat_model: ThreatModel, epsilon: float, seed: int
) -> Measurement:
    """What an alpha rule weighs: accuracy and loss, clean and under `attack` at full strength at radius `epsilon`."""
    logits = predict(network, split)
    adversarial = attacked_logits(network, split, attack, threat_model, epsilon, seed)
    return Measurement(
        clean_accuracy=fraction(~wrong(logits, split.labels)),
        adversarial_accuracy=fraction(~wrong(adversarial, split.labels)),
        clean_loss=cross_entropy(logits, split.labels).mean().item(),
        adversarial_loss=cross_entropy(adversarial, split.labels).mean().item(),
    )


def confidence(
    network: Network, split: Split, attack: Attack, threat_model: ThreatModel, seed: int, name: str
) -> dict[str, float]:
    """How sure the network is under an attack at full strength, where it is right and where it is wrong.

    Higher is not better by itself: a successful attack is one that makes the network sure and wrong. So the calibration
    error and the negative log-likelihood are given beside it.
    """
    logits = attacked_logits(network, split, attack, threat_model, threat_model.epsilon, seed).cpu()
    labels = split.labels.cpu()
    right = ~wrong(logits, labels)
    highest = logits.softmax(1).amax(1)
    prefix = f"{name}/{attack.label}"
    figures = {
        f"{prefix}/confidence_right": highest[right].mean().item() if right.any() else None,
        f"{prefix}/confidence_wrong": highest[~right].mean().item() if (~right).any() else None,
        f"{prefix}/calibration_error": calibration_error(highest, right),
        f"{prefix}/negative_log_likelihood": F.cross_entropy(logits, labels).item(),
    }
    return {key: value for key, value in figures.items() if value is not None}


def _stray(points: Tensor, images: Tensor, threat_model: ThreatModel) -> float:
    """How far the farthest point lies outside of the ball around its image, or of the pixel box; not a number is 1."""
    beyond = threat_model.distance(points, images).amax() - threat_model.epsilon
    outside = torch.stack([beyond, -points.amin(), points.amax() - 1])
    return max(float(outside.nan_to_num(nan=1.0, posinf=1.0).amax()), 0.0)


def mixed_accuracy(clean: float, adversarial: float, share: float) -> float:
    """Accuracy on a set of which `share` in [0, 1] is adversarial: linear in the share, so it ranks nothing new."""
    return (1 - share) * clean + share * adversarial


def calibration_error(highest: Tensor, right: Tensor) -> float:
    """Expected calibration error over 15 equal bins of the highest probability (Guo et al. 2017, eq. 3)."""
    bins = (highest * _BINS).long().clamp(0, _BINS - 1)
    gaps = torch.zeros(_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, right.double() - highest.double())
    return (gaps.abs().sum() / len(highest)).item()


def predict(network: Network, split: Split) -> Tensor:
    """Logits [N, K] on the split's device, in evaluation mode, without gradients."""
    with torch.no_grad(), crafting(network, "eval"):
        parts = [network(split.pixels(slice(start, start + BATCH))) for start in range(0, len(split), BATCH)]
    return torch.cat(parts)


def fraction(flags: Tensor) -> float:
    """The share of true values, exact in double precision."""
    return flags.double().mean().item()


def attacked_logits(
    network: Network,
    split: Split,
    attack: Attack,
    threat_model: ThreatModel,
    epsilon: float,
    seed: int,
    view: View = "judged",
) -> Tensor:
    """Logits [N, K] under an attack at full strength that differentiates the given view; they are the judged ones."""
    parts = []
    with crafting(network, "eval"):
        for start in range(0, len(split), BATCH):
            rows = slice(start, start + BATCH)
            adversary = adversary_of(threat_model, epsilon, seed, attack, start, split.labels.device)
            with viewed(network, view):
                points = attack.perturb(network, split.pixels(rows), split.labels[rows], adversary)
            with torch.no_grad():
                parts.append(network(points))
    return torch.cat(parts)


def adversary_of(
    threat_model: ThreatModel, epsilon: float, seed: int, attack: Attack, start: int, device: torch.device
) -> Adversary:
    """Who attacks the batch that begins at `start`, with a random stream of its own."""
    return Adversary(threat_model, epsilon, generator(seed, "evaluation", attack.label, start, device=device))
