"""Catastrophic overfitting, noticed while it happens (Wong et al. 2020; Andriushchenko & Flammarion 2020).

A network trained against a single step may learn, within an epoch, to mislead just that step: its accuracy under FGSM
stays high and that under PGD falls to nothing. The figures of each epoch show the fall; one pass of FGSM over a few
images, made only then, tells it from a training that went wrong in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweep.attacks.fgsm import FGSM
from sweep.attacks.pgd import PGD
from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.evaluation import evaluate, fraction
from sweep.models.network import Network
from sweep.validity.subject import IMAGES, is_single_step, judge_of

METRIC = "validation/catastrophic_overfitting"  # accuracy under one step less that under many, where it was measured
_FALL = 0.2  # of the adversarial accuracy below its best so far (Wong et al. 2020, official code)
_GAP = 0.2  # between one step and many


def measured_gap(
    config: TrialConfig,
    network: Network,
    validation: Split,
    earlier: Sequence[Mapping[str, float]],
    metrics: Mapping[str, float],
) -> float | None:
    """The accuracy under a single step less that under many, on a few images; None where nothing calls for it.

    `earlier` and `metrics` are the figures of the past epochs and of this one. A judge of a single step cannot see the
    fall: then PGD looks after every validation of a network that is attacked in training.
    """
    judge = judge_of(config)
    name = f"validation/{judge.label}/adversarial_accuracy"
    if config.catastrophic_overfitting == "go_on" or not config.defense.attacks or name not in metrics:
        return None
    if not is_single_step(judge):
        best = max((past[name] for past in earlier if name in past), default=0.0)
        if best - metrics[name] <= _FALL:
            return None
    one, many = (judge, PGD(num_steps=10)) if is_single_step(judge) else (FGSM(), judge)
    some = slice(IMAGES["fast"])
    looked_at = Split(validation.images[some], validation.labels[some])
    verdicts = evaluate(network, looked_at, (one, many), config.threat_model, config.seed)
    return fraction(verdicts.robust[one.label]) - fraction(verdicts.robust[many.label])


def is_collapse(metrics: Mapping[str, float]) -> bool:
    """Whether an epoch's figures tell of catastrophic overfitting."""
    return metrics.get(METRIC, 0.0) > _GAP
