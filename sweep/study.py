"""A study: one question, as data. A search-space file holds one `STUDY`; the study folder holds it whole, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import to_jsonable_python

from sweep.attacks import NamedAttack
from sweep.attacks.pgd import PGD
from sweep.configuration import Checks, OnCollapse, Several, TrialConfig, fingerprint
from sweep.domains import Choice, Domain, Integer, LogUniform, Uniform
from sweep.errors import ConfigurationError, counted, unknown
from sweep.objective import AtLeast, AtMost, Goal, Maximize, Minimize
from sweep.provisions import Asha, Budget, Confirmation, Limits, Resources
from sweep.registry import Record, explained, problems, validated
from sweep.search_space import OneOf, SearchSpace, merged
from sweep.seeding import derive
from sweep.soundness import (
    DECIDED_BY_STUDY,
    forbidden,
    incoherent,
    incomparable,
    misplaced_bounds,
    unpromotable,
    unusable_sampler,
)

__all__ = [
    "Asha",
    "AtLeast",
    "AtMost",
    "Budget",
    "Choice",
    "Integer",
    "Limits",
    "LogUniform",
    "Maximize",
    "Minimize",
    "OneOf",
    "Resources",
    "SearchSpace",
    "Study",
    "Uniform",
]

NOT_IN_FINGERPRINT = ("budget", "description", "concurrency", "retries", "limits", "checkpoint_minutes")


class Study(Record):
    """A search space, how it is searched, and what is sought in it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="folder, experiment and address of the study")
    description: str = Field("", description="the search-space file's header")
    space: SearchSpace
    search_attack: NamedAttack = Field(
        default=PGD(num_steps=10), description="attack on the validation split each epoch"
    )
    final_attacks: Annotated[tuple[NamedAttack, ...], Several] = Field(
        default=(), description="further attacks on the validation split, once, when a trial completes"
    )
    objective: Annotated[
        tuple[Goal, ...], Several, BeforeValidator(lambda value: (value,) if isinstance(value, Goal) else value)
    ]
    select: Literal["best", "last"] = Field("best", description="which epoch's network counts as a trial's")
    validity: Checks = "fast"
    catastrophic_overfitting: OnCollapse = "mark"
    sampler: Literal["tpe", "gp", "nsga2", "random", "grid", "cma_es"] = "tpe"
    startup_trials: int = Field(10, ge=1, description="random trials before the sampler models anything")
    compare: Literal["defense"] | None = Field(
        None,
        description="tune each defense with the same gradient evaluations, a sampler and rungs of its own",
    )
    early_stopping: Asha | None = None
    budget: Budget
    per_trial: Resources = Resources()
    concurrency: int | None = Field(None, ge=1, description="trials at once; none: as many as the resources hold")
    retries: int = Field(
        2, ge=0, le=100, description="how often a trial is taken up again whose process died, hung or ran out of memory"
    )
    limits: Limits = Limits()
    checkpoint_minutes: float = Field(
        0.0,
        ge=0,
        description="at least so long between two checkpoints of a trial: what the loss of its machine costs at most, "
        "beside the epoch that it was in; 0: one each epoch",
    )
    enqueue: Annotated[tuple[dict[str, Any], ...], Several] = Field(
        default=(), description="partial configurations that are tried first; the sampler fills in what they leave open"
    )
    seed: int = Field(0, ge=0, lt=2**31)
    confirms: Confirmation | None = Field(None, description="set by `sweep confirm`: opens the test split")

    @model_validator(mode="after")
    def _is_sound(self) -> Study:
        mistakes = [
            *forbidden(self.space),
            *misplaced_bounds(self.objective),
            *unusable_sampler(self.sampler, self.space, self.objective),
            *incoherent(self.space, self.objective, self.search_attack, self.final_attacks),
            *_unopenable(self.confirms, self.budget),
        ]
        mistakes += incomparable(self.sampler, self.space, self.enqueue) if self.compare else []
        mistakes += unpromotable(self.sampler, self.early_stopping)
        mistakes += sorted({text for config in self.space.corners() for text in self.mistakes(config)} - {*mistakes})
        mistakes += _unusable_enqueued(self, known=mistakes)
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _find_every_mistake(cls, data: Any, handler: ModelWrapValidatorHandler[Study]) -> Study:
        """Where fields are wrong, the checks across fields look at the rest, with something harmless in their place.

        Defined last, and so run around the checks above.
        """
        try:
            return handler(data)
        except ValidationError as error:
            lines = explained(cls, error)
            wrong = {line["loc"][0] for line in error.errors(include_url=False) if line["loc"]}
            if wrong and isinstance(data, dict) and "space" not in wrong:
                rest = {key: value for key, value in data.items() if key in cls.model_fields and key not in wrong}
                harmless = {key: value for part in wrong for key, value in _HARMLESS.get(str(part), {}).items()}
                try:
                    handler(rest | harmless)
                except ValidationError as further:
                    lines += explained(cls, further)
            raise ValidationError.from_exception_data(cls.__name__, lines) from None

    def enqueued_point(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """An enqueued configuration as a point of the space; what it leaves open is at its domain's first value."""
        parameters, replacements = self.space.constrain(given)
        return merged(self.space.resolve(partial(_fixed_or_first, parameters)), replacements)

    def trial_config(self, config: dict[str, Any], number: int) -> TrialConfig:
        """The whole configuration of trial `number`, whose point in the space is `config`."""
        return validated(TrialConfig, self._completed(config, number), f"trial {number}")

    def complete(self, config: dict[str, Any], number: int) -> dict[str, Any]:
        """The same as JSON, every default written out. Where values, each allowed, do not go together, as it was given:
        the trial then fails and says so."""
        try:
            return self.trial_config(config, number).to_json()
        except ConfigurationError:
            plain: dict[str, Any] = to_jsonable_python(self._completed(config, number))
            return plain

    def _completed(self, config: dict[str, Any], number: int) -> dict[str, Any]:
        decided = {
            "validation_attacks": (self.search_attack,),
            "final_attacks": self.final_attacks,
            "test_attacks": self.confirms.attacks if self.confirms else (),
            "objective": self.objective,
            "select": self.select,
            "validity": self.validity,
            "catastrophic_overfitting": self.catastrophic_overfitting,
            "seed": derive(self.seed, "trial", number),
            "threads": self.per_trial.cpus,
        }
        return config | decided

    def mistakes(self, config: dict[str, Any]) -> list[str]:
        """Everything wrong with a point of the space, a sentence each."""
        searchable = TrialConfig.model_fields.keys() - DECIDED_BY_STUDY.keys()
        known = {key: value for key, value in config.items() if key in TrialConfig.model_fields}
        found = [f"space.{key}: {unknown('parameter', key, searchable)}" for key in config if key not in known]
        try:
            TrialConfig.model_validate(self._completed(known, 0))
        except ValidationError as error:
            found += [
                f"space.{text}" if text.split(":")[0].split(".")[0] in known else text for text in problems(error)
            ]
        return found

    @property
    def experiment(self) -> str:
        """Where MLflow shows it: under its name, or with the study that it confirms."""
        return self.confirms.study if self.confirms else self.name

    def to_json(self) -> dict[str, Any]:
        """The study in full, every default written out."""
        return self.model_dump(mode="json")

    @property
    def fingerprint(self) -> str:
        """Changes with anything that would give a trial other figures, or the sampler another task: not with the
        budget, the text, what trials run on, or how many run at once (which changes what is proposed, and no trial).

        (A trial's CPUs are its threads, and the order of sums differs with their number.)
        """
        whole = {key: value for key, value in self.to_json().items() if key not in NOT_IN_FINGERPRINT}
        if self.compare is None:  # as in the studies of before there was a comparison
            del whole["compare"]
        if self.early_stopping and self.early_stopping.kind == "stopping":  # before there was another
            del whole["early_stopping"]["kind"]
        return fingerprint(whole | {"per_trial": {"cpus": self.per_trial.cpus}})


def study_from(data: Any, subject: str) -> Study:
    """A study from JSON or keyword arguments, or one ConfigurationError with every mistake in it."""
    return validated(Study, data, subject)


# What stands in for a field that is wrong while the others are checked. Without its attack no objective can be judged.
_HARMLESS: dict[str, dict[str, Any]] = {
    "name": {"name": "study"},
    "budget": {"budget": Budget(trials=1)},
    "objective": {"objective": Minimize("seconds")},
    "search_attack": {"objective": Minimize("seconds")},
}


def _unopenable(confirms: Confirmation | None, budget: Budget) -> list[str]:
    """The sampler would choose on the test split, were a confirmation given more trials than its trainings."""
    if confirms is None or budget.trials == confirms.trainings:
        return []
    return [
        f"budget.trials: this confirmation has {counted(confirms.trainings, 'training')} and no others, got "
        f"{budget.trials}; `sweep confirm {confirms.study} --again` opens the test split for more"
    ]


def _unusable_enqueued(study: Study, known: Sequence[str]) -> list[str]:
    mistakes = []
    for number, given in enumerate(study.enqueue):
        try:
            _, replacements = study.space.constrain(given)
        except ValueError as error:
            mistakes.append(f"enqueue[{number}].{error}")
            continue
        refused = [key for key in ("dataset", "threat_model", *DECIDED_BY_STUDY) if key in replacements]
        mistakes += [f"enqueue[{number}].{key}: fixed for the whole study" for key in refused]
        found = study.mistakes(study.enqueued_point(given))
        mistakes += [f"enqueue[{number}].{text.removeprefix('space.')}" for text in found if text not in known]
    return mistakes


def _fixed_or_first(fixed: Mapping[str, Any], name: str, domain: Domain) -> Any:
    return fixed[name] if name in fixed else domain.representatives()[0]
