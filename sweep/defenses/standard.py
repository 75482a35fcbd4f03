from __future__ import annotations

from sweep.attacks import cross_entropy
from sweep.defenses.base import Defense, Losses, Step, correct
from sweep.registry import register


@register("standard")
class Standard(Defense):
    """Ordinary training on clean images: the baseline that every defense's cost and gap are measured against."""

    @property
    def gradient_evaluations(self) -> float:
        return 1

    def loss(self, step: Step) -> Losses:
        logits = step.network(step.images)
        losses = cross_entropy(logits, step.labels)
        return Losses(losses.mean(), clean=losses.detach(), clean_correct=correct(logits, step.labels))
