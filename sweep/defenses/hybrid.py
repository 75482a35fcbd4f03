from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sweep.alpha_rules import Measurement, NamedAlphaRule
from sweep.alpha_rules.base import MeasuredAlphaRule
from sweep.alpha_rules.paper_ratio import PaperRatio
from sweep.attacks import Adversary, Attack, NamedAttack, Objective, cross_entropy
from sweep.defenses.base import AttackedDefense, Clock, Losses, Step, correct
from sweep.models.batch_norm import use_statistics
from sweep.models.network import Network
from sweep.registry import register
from sweep.schedules import NamedSchedule
from sweep.schedules.linear import Linear


@register("hybrid")
class Hybrid(AttackedDefense):
    """Dynamic adversarial augmentation with the adaptive loss (Delviz et al. 2024, Algorithm 1 and section 3.2).

        L = alpha L_clean + (1 - alpha) L_adv,  trained on D and its adversarial copy, epsilon rising from epsilon / 10.

    The paper leaves much open; each opening is a parameter here, and its default is the paper's reading: the radius
    rises linearly over all of training and moves after an epoch's examples are made; alpha is A_adv / (A_adv + A_clean)
    on the validation split, with one epoch's lag; clean and adversarial images come in pairs.

    With alpha fixed at 0 and a constant radius this is adversarial training, at 1 standard training, to the bit, for
    networks without batch norm and dropout (whose statistics see both halves here).
    """

    epsilon_schedule: NamedSchedule = Field(default=Linear(start=0.1), description="multiple of epsilon over training")
    alpha_rule: NamedAlphaRule = Field(default=PaperRatio(), description="how the clean loss's weight is found")
    alpha_attack: NamedAttack | None = Field(
        None, description="attack that alpha is measured with; none: the inner one"
    )
    batch_mode: Literal["paired", "union"] = Field(
        "paired", description="each image with its adversarial copy, or batches drawn from the union of both sets"
    )
    examples: Literal["batch", "epoch"] = Field(
        "batch", description="adversarial examples made for each batch, or for all images when an epoch begins"
    )
    split_batch_norm: bool = Field(
        False, description="separate batch-norm statistics for adversarial batches (AdvProp)"
    )

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.split_batch_norm and self.batch_mode == "union":
            raise ValueError(
                "split_batch_norm needs batch_mode 'paired': a union's batches are clean and adversarial at once"
            )
        if self.examples == "epoch" and self.epsilon_update == "step":
            raise ValueError("epsilon_update 'step' needs examples 'batch': made once an epoch, they have one radius")
        return self

    @property
    def gradient_evaluations(self) -> float:
        return self.attack.gradient_evaluations + 2

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (self.attack, self.alpha_attack) if self.alpha_attack else (self.attack,)

    @property
    def refresh(self) -> Literal["batch", "epoch"]:
        return self.examples

    @property
    def splits_batch_norm(self) -> bool:
        return self.split_batch_norm

    def alpha_at(self, clock: Clock, history: Sequence[Measurement]) -> float:
        return self.alpha_rule.value(clock.progress, history)

    def measurement(self, current_epsilon: float) -> tuple[Attack, float] | None:
        rule = self.alpha_rule
        if not isinstance(rule, MeasuredAlphaRule) or rule.split == "train":
            return None
        return self.alpha_attack or self.attack, self.epsilon if rule.measured_at == "target" else current_epsilon

    def order(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(size if self.batch_mode == "paired" else 2 * size, generator=generator)

    def loss(self, step: Step) -> Losses:
        return self._paired(step) if self.batch_mode == "paired" else self._union(step)

    def _paired(self, step: Step) -> Losses:
        clean_logits = step.network(step.images)
        with self._adversarial_statistics(step.network):
            adversarial = step.adversarial
            if adversarial is None:
                adversarial = self.craft(step.network, step.images, step.labels, step.adversary)
            logits = step.network(adversarial)
        clean, worst = cross_entropy(clean_logits, step.labels), cross_entropy(logits, step.labels)
        return Losses(
            step.alpha * clean.mean() + (1 - step.alpha) * worst.mean(),
            clean=clean.detach(),
            adversarial=worst.detach(),
            clean_correct=correct(clean_logits, step.labels),
            adversarial_correct=correct(logits, step.labels),
        )

    def _union(self, step: Step) -> Losses:
        """Each example weighs 2 alpha or 2 (1 - alpha): the expectation over batches is the paired loss."""
        copies = step.is_adversarial
        assert copies is not None
        images = step.images.clone()
        if step.adversarial is not None:
            images[copies] = step.adversarial[copies]
        elif copies.any():
            images[copies] = self.craft(step.network, images[copies], step.labels[copies], step.adversary)
        logits = step.network(images)
        losses, right = cross_entropy(logits, step.labels), correct(logits, step.labels)
        weights = 2 * torch.where(copies, 1 - step.alpha, step.alpha)
        values = losses.detach()
        return Losses((weights * losses).mean(), values[~copies], values[copies], right[~copies], right[copies])

    def craft(
        self, network: Network, images: Tensor, labels: Tensor, adversary: Adversary, objective: Objective | None = None
    ) -> Tensor:
        with self._adversarial_statistics(network):
            return super().craft(network, images, labels, adversary, objective)

    def _adversarial_statistics(self, network: Network) -> AbstractContextManager[None]:
        return use_statistics(network, "adversarial") if self.split_batch_norm else nullcontext()
