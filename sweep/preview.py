"""What a study will do, worked out before anything starts: branches, cost in gradient evaluations, rungs, doubts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sweep.configuration import TrialConfig
from sweep.datasets import Splits
from sweep.defenses import Clock
from sweep.errors import DataError
from sweep.provisions import Asha
from sweep.resources import choose_device, computes_bfloat16
from sweep.search_space import OneOf
from sweep.study import Study
from sweep.validity import IMAGES, asked, cost

_ENOUGH = 100  # validation images, from which on V28 has nothing to say
_RISEN = 0.9  # of its final value: from here on a radius counts as risen


@dataclass(frozen=True)
class Branch:
    """One combination of the outermost components, at its costliest."""

    name: str
    config: TrialConfig
    parameters: int  # searched in this branch
    per_epoch: float  # gradient evaluations of training, alpha's measurement included
    validation_per_epoch: float  # at most: an example that is broken costs no more

    preparation: float  # gradient evaluations before the first epoch

    @property
    def total(self) -> float:
        return self.preparation + self.per_epoch * self.config.epochs

    def reaches(self, spent: int) -> int:
        """The epoch at whose end so many gradient evaluations are spent."""
        return max(1, math.ceil((spent - self.preparation) / self.per_epoch))


@dataclass(frozen=True)
class Rung:
    """A level of early stopping and the epoch at which each branch reaches it (branches that never do are left out)."""

    level: int
    epochs: dict[str, int]


@dataclass(frozen=True)
class Preview:
    """A study's plan."""

    sizes: tuple[int, int] | None  # training and validation examples, where the data could be read
    branches: list[Branch]
    rungs: list[Rung]
    doubts: list[str]
    checks: int  # of validity, asked of each completed trial
    checking: float  # their gradient evaluations, at most

    share: float | None  # gradient evaluations that each defense gets, where they are compared and limited

    @property
    def most(self) -> float:
        """Gradient evaluations of one trial of the costliest branch."""
        return max(branch.total for branch in self.branches)


def preview(study: Study) -> Preview:
    """Work the plan out. Data that cannot be read are a doubt, not an error: the machine that runs may have them."""
    doubts: list[str] = []
    configs = [study.trial_config(config, 0) for config in study.space.corners()]
    enqueued = [study.trial_config(study.enqueued_point(given), 0) for given in study.enqueue]
    splits = _splits(configs[0], doubts)
    sizes = (len(splits.train), len(splits.validation)) if splits else None
    doubts += sorted({text for config in configs if splits for text in config.unanswerable(splits.classes)})
    if sizes and sizes[1] < _ENOUGH:
        doubts.append(
            f"dataset.validation_size: on {sizes[1]} validation images an accuracy's standard error is up to "
            f"{0.5 / math.sqrt(sizes[1]):.2f}, and chance decides who wins; below 25 every trial will be suspect (V28)"
        )
    branches = _costliest([_branch(study, config, sizes or (1, 0)) for config in [*configs, *enqueued]])
    rungs = _rungs(study.early_stopping, branches, sizes) if study.early_stopping else []
    doubts += [*_doubts(study, branches, rungs), *(_unequal(study, branches) if sizes else [])]
    doubts += sorted({text for config in [*configs, *enqueued] for text in _slow(config)})
    doubts += sorted({text for config in configs for text in _early(_name(study, config), config, rungs)})
    checking = max(cost(branch.config, sizes[1] if sizes else IMAGES[study.validity]) for branch in branches)
    return Preview(sizes, branches, rungs, doubts, len(asked(study.validity)), checking, _share(study))


def _splits(config: TrialConfig, doubts: list[str]) -> Splits | None:
    try:
        return config.dataset.load()
    except DataError as error:
        doubts.append(f"the data cannot be read here, so costs are given for each training example: {error}")
        return None


def _branch(study: Study, config: TrialConfig, sizes: tuple[int, int]) -> Branch:
    train, validation = sizes
    judged = validation * max(config.defense.test_draws, 1)  # every draw costs a pass
    per_epoch = config.defense.gradient_evaluations * train
    measured = config.defense.measurement(0.0)
    if measured:
        per_epoch += measured[0].gradient_evaluations * judged
    judges = sum(attack.gradient_evaluations for attack in config.validation_attacks) * judged
    return Branch(
        name=_name(study, config),
        config=config,
        parameters=_parameters(study, config),
        per_epoch=per_epoch,
        validation_per_epoch=judges / config.validate_every,
        preparation=config.defense.preparation * train,
    )


def _costliest(branches: list[Branch]) -> list[Branch]:
    """Each branch at the corner of its space where a trial costs most."""
    chosen: dict[str, Branch] = {}
    for branch in branches:
        known = chosen.get(branch.name)
        if known is None or branch.total > known.total:
            chosen[branch.name] = branch
    return list(chosen.values())


def _name(study: Study, config: TrialConfig) -> str:
    chosen = [key for key, node in study.space.tree.items() if isinstance(node, OneOf)]
    names = [getattr(config, key).name for key in chosen]
    return " + ".join(names) or config.defense.name


def _parameters(study: Study, config: TrialConfig) -> int:
    branches = {key: getattr(config, key).name for key, node in study.space.tree.items() if isinstance(node, OneOf)}

    def inside(name: str) -> bool:
        parts = name.split(".")
        return parts[0] not in branches or (len(parts) > 1 and parts[1] == branches[parts[0]])

    return sum(inside(name) for name in study.space.domains())


def _rungs(rule: Asha, branches: list[Branch], sizes: tuple[int, int] | None) -> list[Rung]:
    """Every rung that some branch reaches before its last epoch."""
    rungs: list[Rung] = []
    while rule.resource == "epochs" or sizes:
        level = rule.grace_period * rule.reduction_factor ** len(rungs)
        epochs = {branch.name: level if rule.resource == "epochs" else branch.reaches(level) for branch in branches}
        within = {branch.name: epochs[branch.name] for branch in branches if epochs[branch.name] < branch.config.epochs}
        if not within:
            break
        rungs.append(Rung(level, within))
    return rungs


def _doubts(study: Study, branches: list[Branch], rungs: list[Rung]) -> list[str]:
    doubts = []
    if study.early_stopping and not rungs:
        doubts.append(
            "early_stopping: no branch reaches the first rung before its last epoch, so nothing is ever stopped"
        )
    if study.sampler == "gp" and any(isinstance(domain, OneOf) for domain in study.space.domains().values()):
        doubts.append(
            "sampler: gp models flat spaces; parameters inside branches are drawn at random (tpe models them)"
        )
    if study.sampler == "grid" and study.space.size > study.budget.trials:
        doubts.append(f"budget: the grid has {study.space.size:.0f} points, and only {study.budget.trials} are tried")
    if len(study.enqueue) > study.budget.trials:
        doubts.append(
            f"budget: {len(study.enqueue)} configurations are enqueued, and only {study.budget.trials} are tried"
        )
    return doubts


def _share(study: Study) -> float | None:
    limit = study.budget.gradient_evaluations
    return limit / len(study.space.alternatives("defense")) if study.compare and limit is not None else None


def _unequal(study: Study, branches: list[Branch]) -> list[str]:
    """Why the defenses of a comparison may get less than their share."""
    share = _share(study)
    if share is None:
        return []
    doubts = [
        f"compare: one trial of {branch.name} may cost {describe_cost(branch.total)} gradient evaluations, and its "
        f"defense's share is {describe_cost(share)}"
        for branch in branches
        if branch.total > share
    ]
    costliest = dict.fromkeys(study.space.alternatives("defense"), 0.0)
    for branch in branches:
        name = branch.config.defense.name
        costliest[name] = max(costliest[name], branch.total)
    fewest = sum(math.ceil(share / total) for total in costliest.values())
    if fewest > study.budget.trials:
        doubts.append(
            f"budget: {study.budget.trials} trials end it before the gradient evaluations are spent, which takes "
            f"{fewest} or more; each defense still gets the same"
        )
    return doubts


def _slow(config: TrialConfig) -> list[str]:
    if config.precision == "float32" or config.device == "cuda" or computes_bfloat16(choose_device(config.device)):
        return []
    return [
        "precision: this machine's CPU has no bfloat16 and is some thirty times slower in it; take float32, unless the "
        "trials run elsewhere"
    ]


def _early(name: str, config: TrialConfig, rungs: list[Rung]) -> list[str]:
    """Why the first rung that this branch meets may say little about its end."""
    first = min((rung.epochs[name] for rung in rungs if name in rung.epochs), default=None)
    if first is None:
        return []
    doubts = []
    drop = config.learning_rate_schedule.first_sharp_drop()
    if drop and first <= drop * config.epochs:
        when = f"before its learning rate first drops (epoch {drop * config.epochs:.0f})"
        doubts.append(
            f"early_stopping: {name} is judged at epoch {first}, {when}; ranks before say little about the end"
        )
    reached = config.defense.epsilon_at(Clock(first, config.epochs), ())
    full = config.defense.epsilon_at(Clock(config.epochs, config.epochs), ())
    if reached < _RISEN * full:
        how = f"with some schedules before its radius has risen to {_RISEN:.0%}"
        doubts.append(f"early_stopping: {name} is judged at epoch {first}, {how}, against trials at their full radius")
    return doubts


def describe_space(study: Study) -> list[tuple[str, str]]:
    """Every parameter with its domain, in words."""
    return [(name, domain.describe()) for name, domain in study.space.domains().items()]


def describe_cost(value: float) -> str:
    """A number of gradient evaluations, short: 1.2 k, 3.4 M."""
    units: list[tuple[float, str]] = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")]
    for size, unit in units:
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def summary(study: Study) -> dict[str, Any]:
    """The preview as JSON, for `--json`."""
    plan = preview(study)
    return {
        "name": study.name,
        "fingerprint": study.fingerprint,
        "parameters": dict(describe_space(study)),
        "branches": [
            {
                "name": b.name,
                "parameters": b.parameters,
                "gradient_evaluations_per_epoch": b.per_epoch,
                "total": b.total,
            }
            for b in plan.branches
        ],
        "share": plan.share,
        "rungs": [{"level": rung.level, "epochs": rung.epochs} for rung in plan.rungs],
        "validity": {"level": study.validity, "checks": plan.checks, "gradient_evaluations": plan.checking},
        "doubts": plan.doubts,
    }
