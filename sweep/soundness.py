"""What is wrong with a study whose fields are each right: sentences for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic_core import PydanticCustomError

from sweep.attacks import Attack
from sweep.configuration import ambiguous, misjudged, unreported
from sweep.domains import Choice, LogUniform, Uniform
from sweep.objective import Goal
from sweep.provisions import Asha
from sweep.registry import build
from sweep.search_space import OneOf, SearchSpace

# What a study decides for all of its trials, and a space therefore may not.
DECIDED_BY_STUDY = {
    "validation_attacks": "search_attack",
    "final_attacks": "final_attacks",
    "test_attacks": "confirms",
    "objective": "objective",
    "select": "select",
    "validity": "validity",
    "catastrophic_overfitting": "catastrophic_overfitting",
    "seed": "seed",
    "threads": "per_trial.cpus",
}


def forbidden(space: SearchSpace) -> list[str]:
    """What the space holds that the study decides, or that nobody may search."""
    mistakes = [
        f"space.{key}: set for the whole study, as Study({name}=...)"
        if name != "confirms"
        else f"space.{key}: the test split is closed during a search; `sweep confirm` opens it"
        for key, name in DECIDED_BY_STUDY.items()
        if key in space.tree
    ]
    mistakes += [
        f"space.{name}: every trial is judged on the same images, so the dataset cannot be searched"
        for name in space.domains()
        if name.split(".")[0] == "dataset"
    ]
    sampled = [name for name in space.domains() if name.split(".")[0] == "threat_model"]
    return mistakes + [
        f"space.{name}: the threat model is what every trial is judged by and cannot be searched; "
        "search defense.epsilon, the radius a defense trains with"
        for name in sampled
    ]


def misplaced_bounds(objective: Sequence[Goal]) -> list[str]:
    """Ranking, the best epoch and export go by the first goal: bounds elsewhere would bind the sampler alone."""
    return [
        f"objective[{number}].subject_to: bounds hold for the whole study; give them to the first goal"
        for number, goal in enumerate(objective)
        if number and goal.subject_to
    ]


def unusable_sampler(sampler: str, space: SearchSpace, objective: Sequence[Goal]) -> list[str]:
    """Why the sampler cannot search this space for this objective."""
    domains = space.domains()
    if sampler == "grid":
        endless = [name for name, domain in domains.items() if isinstance(domain, Uniform | LogUniform)]
        return (
            [f"sampler: a grid needs finite domains, and {', '.join(endless)} hold real numbers; use Choice"]
            if endless
            else []
        )
    if sampler == "cma_es":
        kinds = [name for name, domain in domains.items() if isinstance(domain, Choice | OneOf)]
        mistakes = (
            [f"sampler: cma_es searches numbers only, and {', '.join(kinds)} hold choices; use tpe"] if kinds else []
        )
        if len(objective) > 1 or objective[0].subject_to:
            mistakes.append("sampler: cma_es seeks one goal without bounds on other metrics; use tpe, gp or nsga2")
        return mistakes
    return []


def unpromotable(sampler: str, early_stopping: Asha | None) -> list[str]:
    """Why nobody of such a sampler can be promoted."""
    if early_stopping is None or early_stopping.kind == "stopping" or sampler != "grid":
        return []
    return [
        "early_stopping: a grid is over once each point was tried, and kind 'promotion' tries some of them again; "
        "use the sampler random, or kind='stopping'"
    ]


def incomparable(sampler: str, space: SearchSpace, enqueue: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why its defenses cannot each be given the same."""
    if not space.alternatives("defense"):
        return ["compare: space.defense is one defense; make it a OneOf of those that are to be compared"]
    mistakes = []
    if sampler in ("grid", "nsga2"):
        why = "tries every point once" if sampler == "grid" else "breeds one population"
        mistakes.append(f"sampler: {sampler} {why}, whatever each defense has spent; use tpe, gp or random")
    return mistakes + [
        f"enqueue[{number}]: names no defense, and where they are compared each configuration is one's own"
        for number, given in enumerate(enqueue)
        if "defense" not in given
    ]


def incoherent(
    space: SearchSpace, objective: Sequence[Goal], search_attack: Attack, final_attacks: Sequence[Attack]
) -> list[str]:
    """What the attacks, the objective and the threat model have against each other, whatever is sampled."""
    attacks = (search_attack, *final_attacks)
    mistakes = [*ambiguous(attacks), *unreported(objective, (search_attack,))]
    with suppress(ValueError, PydanticCustomError):  # a wrong threat model is told of by the space's corners
        mistakes += misjudged(build("threat_model", space.tree.get("threat_model")), attacks)
    return mistakes
