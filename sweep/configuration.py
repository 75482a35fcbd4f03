"""A trial's configuration: one nested mapping, checked whole. With its seed it decides every figure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sweep.attacks import Attack, NamedAttack
from sweep.attacks.pgd import PGD
from sweep.augmentation import Augmentation
from sweep.datasets import NamedDataset
from sweep.defenses import NamedDefense
from sweep.errors import unknown
from sweep.figures import metric_names
from sweep.models import NamedModel
from sweep.objective import Goal, Maximize
from sweep.optimizers import NamedOptimizer
from sweep.optimizers.sgd import SGD
from sweep.registry import Record
from sweep.schedules import NamedSchedule
from sweep.schedules.adaptive import Adaptive
from sweep.schedules.constant import Constant
from sweep.threat_models import NamedThreatModel, ThreatModel

Several = Field(strict=False)  # JSON has lists only: let them be tuples
Checks = Annotated[Literal["fast", "full"], Field(description="which validity checks a completed trial is asked")]
OnCollapse = Annotated[
    Literal["stop", "mark", "go_on"],
    Field(description="what happens where robustness collapses in training: stop, note it, or do not look"),
]


class TrialConfig(Record):
    """What is trained on what, against whom, how, and how it is judged."""

    dataset: NamedDataset
    model: NamedModel
    threat_model: NamedThreatModel = Field(description="the ball everyone is judged in, fixed for a study")
    defense: NamedDefense
    epochs: int = Field(ge=1, le=100_000, description="passes over the training split")
    batch_size: int = Field(128, ge=1, le=1_000_000, description="examples a step")
    optimizer: NamedOptimizer = Field(default=SGD())
    learning_rate_schedule: NamedSchedule = Field(
        default=Constant(), description="multiple of the learning rate, by step"
    )
    augmentation: Augmentation = Field("none", description="random shifts, and mirroring, of training images")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the network's layers, by autocast")
    compile: bool = Field(False, description="compile training's passes (torch.compile): pays on a GPU, costs on a CPU")
    validation_attacks: Annotated[tuple[NamedAttack, ...], Several] = Field(
        default=(PGD(num_steps=10),), min_length=1, description="attacks on the validation split after an epoch"
    )
    final_attacks: Annotated[tuple[NamedAttack, ...], Several] = Field(
        default=(), description="further attacks on the validation split, once, when a trial completes"
    )
    test_attacks: Annotated[tuple[NamedAttack, ...], Several] = Field(
        default=(),
        description="attacks on the test split, once, when a trial completes: `sweep confirm` alone sets them",
    )
    validate_every: int = Field(1, ge=1, description="epochs between validations; the last epoch is always validated")
    objective: Annotated[tuple[Goal, ...], Several] = Field(
        default=(Maximize("validation/pgd_10/adversarial_accuracy"),),
        min_length=1,
        description="what is sought; the first goal chooses the best epoch",
    )
    select: Literal["best", "last"] = Field("best", description="which epoch's network counts as the trial's")
    validity: Checks = "fast"
    catastrophic_overfitting: OnCollapse = "mark"
    seed: int = Field(0, ge=0, lt=2**63, description="of every random stream but the dataset's split")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads: sums depend on how they are divided")
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _is_coherent(self) -> TrialConfig:
        attacks = (*self.validation_attacks, *self.final_attacks)
        mistakes = [
            *misjudged(self.threat_model, (*attacks, *self.test_attacks, *self.defense.attacks)),
            *ambiguous(attacks),
            *ambiguous(self.test_attacks, "test_attacks"),
            *unreported(self.objective, self.validation_attacks),
        ]
        if isinstance(self.learning_rate_schedule, Adaptive):
            mistakes.append(
                "learning_rate_schedule: adaptive follows adversarial accuracies, and only epsilon may do so"
            )
        if self.compile and self.defense.differentiates_twice:
            mistakes.append(f"compile: {self.defense.name} needs second derivatives, which torch.compile does not give")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def to_json(self) -> dict[str, Any]:
        """The configuration in full, every default written out, as JSON holds it."""
        return self.model_dump(mode="json")

    def unanswerable(self, classes: int) -> list[str]:
        """A sentence for each attack whose loss needs more classes than the dataset has."""
        attacks = (*self.validation_attacks, *self.final_attacks, *self.test_attacks, *self.defense.attacks)
        return [
            f"{attack.label} needs at least {attack.fewest_classes} classes, and {self.dataset.name} has {classes}: "
            "give it another loss"
            for attack in dict.fromkeys(attacks)
            if attack.fewest_classes > classes
        ]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that any change of any value changes."""
        return fingerprint(self.to_json())


def fingerprint(value: Any) -> str:
    """The first 48 bits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def misjudged(threat_model: ThreatModel, attacks: Iterable[Attack]) -> list[str]:
    """A sentence for each attack that says nothing about this threat model."""
    return [
        f"{attack.name} means nothing under {threat_model.name}: it is judged under {' or '.join(attack.threat_models)}"
        for attack in attacks
        if threat_model.name not in attack.threat_models
    ]


def ambiguous(attacks: Iterable[Attack], field: str = "final_attacks") -> list[str]:
    """A sentence for each name that two attacks would report as."""
    counts = Counter(attack.label for attack in attacks)
    return [f"{field}: two attacks would both report as '{label}'" for label, count in counts.items() if count > 1]


def unreported(objective: Iterable[Goal], validation_attacks: Iterable[Attack]) -> list[str]:
    """A sentence for each metric that is sought or bounded, but that no epoch reports."""
    names = metric_names(validation_attacks)
    wanted = dict.fromkeys(metric for goal in objective for metric in (goal.metric, *goal.subject_to))
    return [
        f"objective: {metric} is measured as the trial chose to train, and so judges nobody: name a validation/ one"
        if metric.startswith("train/")
        else f"objective: no trial will report this: {unknown('metric', metric, names)}"
        for metric in wanted
        if metric not in names
    ]
