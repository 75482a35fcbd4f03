"""What a study will do, worked out before anything starts: branches, cost in gradient evaluations, rungs, doubts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sweep.configuration import TrialConfig
from sweep.datasets import Splits
from sweep.errors import DataError, counted
from sweep.forecast import Branch, Rung, Step, early, first_whole, incompressible, rungs, steps
from sweep.provisions import Asha
from sweep.resources import choose_device, computes_bfloat16
from sweep.search_space import OneOf
from sweep.study import Study
from sweep.threat_models import ThreatModel
from sweep.validity import IMAGES, asked, cost

_HALF_A_LEVEL = 1 / 510  # of the 256 that a pixel is stored in
_ENOUGH = 100  # validation images, from which on V28 has nothing to say


@dataclass(frozen=True)
class Preview:
    """A study's plan."""

    sizes: tuple[int, int] | None  # training and validation examples, where the data could be read
    branches: list[Branch]
    rungs: list[Rung]
    doubts: list[str]
    checks: int  # of validity, asked of a completed trial, at most
    checking: float  # their gradient evaluations, at most

    share: float | None  # gradient evaluations that each defense gets, where they are compared and limited
    steps: list[Step]  # what promotion makes of the trials, were all of them of the costliest branch

    @property
    def most(self) -> float:
        """Gradient evaluations of one trial of the costliest branch."""
        return max(branch.total for branch in self.branches)


def preview(study: Study) -> Preview:
    """Work the plan out. Data that cannot be read are a doubt, not an error: the machine that runs may have them."""
    doubted: list[str] = []
    configs = [study.trial_config(config, 0) for config in study.space.corners()]
    enqueued = [study.trial_config(study.enqueued_point(given), 0) for given in study.enqueue]
    splits = _splits(configs[0], doubted)
    sizes = (len(splits.train), len(splits.validation)) if splits else None
    doubted += sorted({text for config in configs if splits for text in config.unanswerable(splits.classes)})
    if sizes and sizes[1] < _ENOUGH:
        doubted.append(
            f"dataset.validation_size: on {counted(sizes[1], 'validation image')} an accuracy's standard error is up to"
            f" {0.5 / math.sqrt(sizes[1]):.2f}, and chance decides who wins; below 25 every trial will be suspect (V28)"
        )
    branches = _costliest([_branch(study, config, sizes or (1, 0)) for config in [*configs, *enqueued]])
    rule = study.early_stopping
    levels = rungs(rule, branches, sizes) if rule else []
    doubted += [*_doubts(study, levels), *(_unequal(study, branches) if sizes else [])]
    doubted += _faint(configs[0].threat_model)
    doubted += sorted({text for config in [*configs, *enqueued] for text in _slow(config)})
    if rule and rule.kind == "promotion":
        doubted += _unaffordable(study, rule, branches, is_costed=sizes is not None)
        doubted += sorted({text for config in configs for text in incompressible(rule, _name(study, config), config)})
    else:
        doubted += sorted({text for config in configs for text in early(_name(study, config), config, levels)})
    checking = max(cost(branch.config, sizes[1] if sizes else IMAGES[study.validity]) for branch in branches)
    checks = max(len(asked(config)) for config in [*configs, *enqueued])
    promoted = steps(rule, max(branches, key=lambda branch: branch.total), study.budget.trials)
    return Preview(sizes, branches, levels, doubted, checks, checking, _share(study), promoted)


def _splits(config: TrialConfig, doubts: list[str]) -> Splits | None:
    try:
        splits = config.dataset.load()
    except DataError as error:
        doubts.append(f"the data cannot be read here, so costs are given for each training example: {error}")
        return None
    if lacking := config.dataset.lacks_test():
        doubts.append(lacking)
    return splits


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
        validation=judges / config.validate_every * config.epochs,
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


def _doubts(study: Study, rungs: list[Rung]) -> list[str]:
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
        doubts.append(
            f"budget: the grid has {study.space.size:.0f} points, and it holds {counted(study.budget.trials, 'trial')}"
        )
    if len(study.enqueue) > study.budget.trials:
        doubts.append(
            f"budget: {len(study.enqueue)} configurations are enqueued, and it holds "
            f"{counted(study.budget.trials, 'trial')}"
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
            f"budget: it ends after {counted(study.budget.trials, 'trial')}, before the gradient evaluations are "
            f"spent, which takes {fewest} or more; each defense still gets the same"
        )
    return doubts


def _unaffordable(study: Study, rule: Asha, branches: list[Branch], *, is_costed: bool) -> list[str]:
    """Why promotion may lead nobody to a whole training: no defense's cheapest branch, where these are compared."""
    rivals: dict[str, list[Branch]] = {}
    for branch in branches:
        rivals.setdefault(f" of {branch.config.defense.name}" if study.compare else "", []).append(branch)
    trials, limit = study.budget.trials / len(rivals), study.budget.gradient_evaluations
    share = limit / len(rivals) if limit is not None and is_costed else math.inf
    return [
        f"early_stopping: the first whole training{name} comes after about {counted(count, 'trial')} and "
        f"{describe_cost(cost)} "
        "gradient evaluations, which the budget does not hold, and without one nothing is best: raise it, or the "
        "grace_period"
        for name, own in rivals.items()
        for count, cost in [min(first_whole(rule, branch) for branch in own)]
        if count > trials or cost > share
    ]


def _slow(config: TrialConfig) -> list[str]:
    if config.device == "cuda" or (device := choose_device(config.device)).type != "cpu":
        return []
    slow = []
    if config.compile:
        slow.append("compile: a CPU compiles for a minute, and is slower after it; leave it out")
    if config.precision == "bfloat16" and not computes_bfloat16(device):
        slow.append("precision: this machine's CPU has no bfloat16 and is some thirty times slower in it; take float32")
    return [f"{text}, unless the trials run elsewhere" for text in slow]


def _faint(threat_model: ThreatModel) -> list[str]:
    if threat_model.name != "linf" or threat_model.epsilon >= _HALF_A_LEVEL:
        return []
    return [
        f"threat_model.epsilon: {threat_model.epsilon:.2g} is below half a grey level (1/510), and moves no pixel that"
        " is stored in 256 levels: divided by 255 twice?"
    ]


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
                "validation": b.validation,
            }
            for b in plan.branches
        ],
        "share": plan.share,
        "rungs": [{"level": rung.level, "epochs": rung.epochs} for rung in plan.rungs],
        "steps": [asdict(step) for step in plan.steps],
        "validity": {"level": study.validity, "checks": plan.checks, "gradient_evaluations": plan.checking},
        "doubts": plan.doubts,
    }
