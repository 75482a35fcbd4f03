"""Checks of how the network was trained: overfitting to one step, to the label's trace, to the training images."""

from __future__ import annotations

import torch

from sweep.attacks import Adversary
from sweep.attacks.base import misclassified
from sweep.models.network import crafting
from sweep.seeding import generator
from sweep.validity.base import check
from sweep.validity.collapse import METRIC
from sweep.validity.strength import other_kind
from sweep.validity.subject import FGSM_ONCE, Subject, is_single_step, share


@check(
    "V22",
    "catastrophic overfitting",
    figure="of the images: accuracy under a single step above that under many, of a network attacked in training",
    reason="It learnt to mislead the step that it was trained against, and is not robust.",
    remedy="Train with a random start, more steps or a smaller radius; catastrophic_overfitting='stop' saves the rest.",
    source="Wong et al. 2020, section 5.1; Andriushchenko & Flammarion 2020",
    passes=lambda judge: other_kind(judge).gradient_evaluations,
    arises=lambda config: bool(config.defense.attacks),
    investigate=0.2,
    suspect=0.3,
)
def catastrophic(subject: Subject) -> float:
    gap = -subject.lost(other_kind(subject.judge))
    if is_single_step(subject.judge):
        gap = -gap
    told = [result.metrics.get(METRIC, 0.0) for result in subject.results if result.epoch == subject.selected_epoch]
    return max([gap, *told])


@check(
    "V23",
    "robust overfitting",
    figure="of the images: what the judge's accuracy lost from its best epoch to the last",
    reason="The last network is less robust than an earlier one, and a figure of the last is not that of the best.",
    remedy='Keep select="best", or train for fewer epochs.',
    source="Rice et al. 2020",
    investigate=0.05,
)
def robust_overfitting(subject: Subject) -> float | None:
    name = f"validation/{subject.judge.label}/adversarial_accuracy"
    told = [result.metrics[name] for result in subject.results if name in result.metrics]
    return max(told) - told[-1] if told else None


@check(
    "V26",
    "label leaking",
    figure="of the images: accuracy under FGSM above the clean accuracy",
    reason="The attack helps: its step carries the label's trace, and the network reads it there.",
    remedy="Train against a predicted label or more steps, and judge with attacks that it did not train against.",
    source="Kurakin et al. 2017, section 4.3",
    passes=lambda judge: 1,
    investigate=0.0,
    suspect=0.02,
)
def leaking(subject: Subject) -> float:
    images, labels, threat_model = subject.images, subject.split.labels, subject.config.threat_model
    stream = generator(subject.config.seed, "validity", "leaking", device=labels.device)
    with crafting(subject.network, "eval"), torch.no_grad():
        points = FGSM_ONCE.perturb(
            subject.network, images, labels, Adversary(threat_model, threat_model.epsilon, stream)
        )
        return share(~misclassified(subject.network, points, labels)) - share(subject.clean)
