"""A study: one question, as data. A search-space file holds one `STUDY`; the study folder holds it resolved, as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from sweep.attacks import NamedAttack
from sweep.attacks.pgd import PGD
from sweep.configuration import Several, TrialConfig, fingerprint
from sweep.domains import Choice, Integer, LogUniform, Uniform
from sweep.errors import ConfigurationError
from sweep.objective import AtLeast, AtMost, Goal, Maximize, Minimize
from sweep.registry import Record, problems, validated
from sweep.search_space import OneOf, SearchSpace, merged
from sweep.seeding import derive

__all__ = [
    "Asha",
    "AtLeast",
    "AtMost",
    "Budget",
    "Choice",
    "Integer",
    "LogUniform",
    "Maximize",
    "Minimize",
    "OneOf",
    "Resources",
    "SearchSpace",
    "Study",
    "Uniform",
]

# What a study decides for all of its trials, and a space therefore may not.
DECIDED_BY_STUDY = {
    "validation_attacks": "search_attack",
    "final_attacks": "final_attacks",
    "objective": "objective",
    "select": "select",
    "seed": "seed",
    "threads": "per_trial.cpus",
}


class Asha(Record):
    """Asynchronous successive halving, stopping kind (Li et al. 2020): at each rung only the best go on.

    Rungs lie at grace_period * reduction_factor^k of `resource`. At a rung, a trial goes on if its best value so far is
    among the best 1 / reduction_factor of the values that reached the rung before it or are its own.
    """

    resource: Literal["epochs", "gradient_evaluations"] = "epochs"
    grace_period: int = Field(ge=1, description="resource before which nothing is stopped: the first rung")
    reduction_factor: int = Field(3, ge=2, le=100, description="one in this many goes on")


class Budget(Record):
    """When no further trial begins; those that run are finished. The first limit reached counts."""

    trials: int = Field(ge=1, le=1_000_000)
    gradient_evaluations: int | None = Field(None, ge=1, description="of all trials together, validation excluded")
    hours: float | None = Field(None, gt=0, description="wall time over all sessions of the study")


class Resources(Record):
    """What one trial gets. A fraction of a GPU lets several trials share one; Ray does not isolate their memory."""

    cpus: int = Field(1, ge=1, le=1024)
    gpus: float = Field(0.0, ge=0, le=64)


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
    sampler: Literal["tpe", "gp", "nsga2", "random", "grid", "cma_es"] = "tpe"
    startup_trials: int = Field(10, ge=1, description="random trials before the sampler models anything")
    early_stopping: Asha | None = None
    budget: Budget
    per_trial: Resources = Resources()
    concurrency: int | None = Field(None, ge=1, description="trials at once; none: as many as the resources hold")
    enqueue: Annotated[tuple[dict[str, Any], ...], Several] = Field(
        default=(), description="partial configurations that are tried first; the sampler fills in what they leave open"
    )
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _is_sound(self) -> Study:
        mistakes = [*_forbidden(self.space), *_unusable_sampler(self)]
        if not mistakes:
            mistakes = sorted({text for config in self.space.corners() for text in self.mistakes(config)})
        if not mistakes:
            mistakes = _unusable_enqueued(self)
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def trial_config(self, config: dict[str, Any], number: int) -> TrialConfig:
        """The whole configuration of trial `number`, whose point in the space is `config`."""
        return validated(TrialConfig, self._completed(config, number), f"trial {number}")

    def _completed(self, config: dict[str, Any], number: int) -> dict[str, Any]:
        decided = {
            "validation_attacks": (self.search_attack,),
            "final_attacks": self.final_attacks,
            "objective": self.objective,
            "select": self.select,
            "seed": derive(self.seed, "trial", number),
            "threads": self.per_trial.cpus,
        }
        return config | decided

    def mistakes(self, config: dict[str, Any]) -> list[str]:
        """Everything wrong with a point of the space, a sentence each."""
        try:
            TrialConfig.model_validate(self._completed(config, 0))
        except ValidationError as error:
            return [f"space.{text}" if text.split(":")[0].split(".")[0] in config else text for text in problems(error)]
        return []

    def to_json(self) -> dict[str, Any]:
        """The study in full, every default written out."""
        return self.model_dump(mode="json")

    @property
    def fingerprint(self) -> str:
        """Changes with anything that would make other trials; the budget may be extended and the text mended."""
        return fingerprint(
            {key: value for key, value in self.to_json().items() if key not in ("budget", "description")}
        )


def study_from(data: Any, subject: str) -> Study:
    """A study from JSON or keyword arguments, or one ConfigurationError with every mistake in it."""
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        lines = [line for text in problems(error) for line in text.split("\n")]
        raise ConfigurationError(subject, lines) from None


def _forbidden(space: SearchSpace) -> list[str]:
    mistakes = [
        f"space.{key}: set for the whole study, as Study({name}=...)"
        for key, name in DECIDED_BY_STUDY.items()
        if key in space.tree
    ]
    sampled = [name for name in space.domains() if name.split(".")[0] == "threat_model"]
    return mistakes + [
        f"space.{name}: the threat model is what every trial is judged by and cannot be searched; "
        "search defense.epsilon, the radius a defense trains with"
        for name in sampled
    ]


def _unusable_sampler(study: Study) -> list[str]:
    domains = study.space.domains()
    if study.sampler == "grid":
        endless = [name for name, domain in domains.items() if isinstance(domain, Uniform | LogUniform)]
        return (
            [f"sampler: a grid needs finite domains, but {', '.join(endless)} is real; use Choice"] if endless else []
        )
    if study.sampler == "cma_es":
        kinds = [name for name, domain in domains.items() if isinstance(domain, Choice | OneOf)]
        return [f"sampler: cma_es searches numbers only, but {', '.join(kinds)} is a choice; use tpe"] if kinds else []
    return []


def _unusable_enqueued(study: Study) -> list[str]:
    mistakes = []
    for number, partial in enumerate(study.enqueue):
        try:
            parameters, replacements = study.space.constrain(partial)
        except ValueError as error:
            mistakes.append(f"enqueue[{number}].{error}")
            continue
        refused = [key for key in ("threat_model", *DECIDED_BY_STUDY) if key in replacements]
        mistakes += [f"enqueue[{number}].{key}: fixed for the whole study" for key in refused]
        config = study.space.resolve(
            lambda name, domain, fixed=parameters: fixed.get(name, domain.representatives()[0])
        )  # type: ignore[misc]
        mistakes += [f"enqueue[{number}].{text}" for text in study.mistakes(merged(config, replacements))]
    return mistakes
