"""The check of what lies before the network: preprocessing that has no gradient is attacked as if it had one."""

from __future__ import annotations

import torch

from sweep.defenses.base import Defense
from sweep.validity.base import check
from sweep.validity.subject import Subject


@check(
    "V19",
    "non-differentiable preprocessing",
    figure="of the images withstand the judge, and not the judge whose gradients skip the preprocessing",
    reason="Rounding, and whatever else has no useful gradient, hides the network behind it.",
    remedy="Let the preprocessing pass gradients straight through, as feature_squeezing does.",
    source="Athalye et al. 2018, section 4.1 (BPDA)",
    passes=lambda judge: judge.gradient_evaluations,
    arises=lambda config: type(config.defense).preprocessor is not Defense.preprocessor,
    investigate=0.05,
    suspect=0.1,
)
def preprocessing(subject: Subject) -> float | None:
    preprocess, one = subject.network.preprocess, subject.images[:1]
    assert preprocess is not None
    changed = preprocess(one)
    if changed.shape != one.shape or torch.equal(changed, one):
        return None
    return subject.broken_only_by(subject.judge, bypass=True)
