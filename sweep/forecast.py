"""What early stopping will do to a study's trials: its rungs, what promotion costs, and what stands in doubt."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sweep.configuration import TrialConfig
from sweep.defenses import Clock
from sweep.defenses.base import AttackedDefense
from sweep.errors import counted
from sweep.provisions import Asha
from sweep.schedules.adaptive import Adaptive

_RISEN = 0.9  # of its final value: from here on a radius counts as risen
_FURTHER = 1.5  # times the epochs of the rung before: a promotion to fewer repeats what is known


@dataclass(frozen=True)
class Branch:
    """One combination of the outermost components, at its costliest."""

    name: str
    config: TrialConfig
    parameters: int  # searched in this branch
    per_epoch: float  # gradient evaluations of training, alpha's measurement included
    validation: float  # gradient evaluations of all its epochs' validation, at most: what is broken costs no more

    preparation: float  # gradient evaluations before the first epoch

    @property
    def total(self) -> float:
        return self.cost(self.config.epochs)

    def cost(self, epochs: int) -> float:
        """Gradient evaluations of a training of so many epochs."""
        return self.preparation + self.per_epoch * epochs

    def reaches(self, spent: int) -> int:
        """The epoch at whose end so many gradient evaluations are spent."""
        return max(1, math.ceil((spent - self.preparation) / self.per_epoch))


@dataclass(frozen=True)
class Rung:
    """A level of early stopping and the epoch at which each branch reaches it (branches that never do are left out)."""

    level: int
    epochs: dict[str, int]


@dataclass(frozen=True)
class Step:
    """Of a study's trials, those that promotion has trained for so many epochs."""

    epochs: int
    trials: float  # about: one in reduction_factor of those before; promotion as they come takes a few more
    cost: float  # gradient evaluations of all of them


def rungs(rule: Asha, branches: list[Branch], sizes: tuple[int, int] | None) -> list[Rung]:
    """Every rung that some branch reaches before its last epoch."""
    found: list[Rung] = []
    while rule.resource == "epochs" or sizes:
        level = rule.grace_period * rule.reduction_factor ** len(found)
        epochs = {branch.name: level if rule.resource == "epochs" else branch.reaches(level) for branch in branches}
        within = {branch.name: epochs[branch.name] for branch in branches if epochs[branch.name] < branch.config.epochs}
        if not within:
            break
        found.append(Rung(level, within))
    return found


def steps(rule: Asha | None, branch: Branch, trials: int) -> list[Step]:
    """What promotion makes of so many trials, were all of them of this branch; nothing where it is not asked for."""
    if rule is None or rule.kind == "stopping":
        return []
    ladder = rule.ladder(branch.config.epochs)
    shares = [rule.reduction_factor**-place for place in range(len(ladder))]
    counts = [trials * share / sum(shares) for share in shares]
    return [Step(epochs, count, count * branch.cost(epochs)) for epochs, count in zip(ladder, counts, strict=True)]


def first_whole(rule: Asha, branch: Branch) -> tuple[int, float]:
    """About how many trials of the branch there are up to the first whole one, and their gradient evaluations."""
    ladder = rule.ladder(branch.config.epochs)
    counts = [rule.reduction_factor**place for place in reversed(range(len(ladder)))]
    return sum(counts), sum(count * branch.cost(epochs) for count, epochs in zip(counts, ladder, strict=True))


def incompressible(rule: Asha, name: str, config: TrialConfig) -> list[str]:
    """Why this configuration, trained for a rung's epochs, may say little about the whole, or nearly all of it."""
    *shorter, whole = rule.ladder(config.epochs)
    found = []
    if shorter and whole < _FURTHER * shorter[-1]:
        found.append(
            f"early_stopping: the last promotion is from {counted(shorter[-1], 'epoch')} to {whole}, all of them anew "
            "for little more: choose a grace_period whose rungs lie further from the last"
        )
    defense = config.defense
    if shorter and isinstance(defense, AttackedDefense) and isinstance(defense.epsilon_schedule, Adaptive):
        found.append(
            f"early_stopping: {name} may have the epsilon_schedule 'adaptive', which grows by the epoch, and which "
            f"nothing compresses: in a rung's {counted(shorter[0], 'epoch')} its radius hardly rises"
        )
    return found


def early(name: str, config: TrialConfig, rungs: list[Rung]) -> list[str]:
    """Why the first rung at which this branch is stopped may say little about its end."""
    first = min((rung.epochs[name] for rung in rungs if name in rung.epochs), default=None)
    if first is None:
        return []
    found = []
    drop = config.learning_rate_schedule.first_sharp_drop()
    if drop and first <= drop * config.epochs:
        when = f"before its learning rate first drops (epoch {drop * config.epochs:.0f})"
        found.append(
            f"early_stopping: {name} is judged at epoch {first}, {when}; ranks before say little about the end: let "
            "the first rung lie behind it, or take kind='promotion', which trains a rung's schedule to its end"
        )
    reached = config.defense.epsilon_at(Clock(first, config.epochs), ())
    full = config.defense.epsilon_at(Clock(config.epochs, config.epochs), ())
    if reached < _RISEN * full:
        how = f"with some schedules before its radius has risen to {_RISEN:.0%}"
        found.append(f"early_stopping: {name} is judged at epoch {first}, {how}, against trials at their full radius")
    return found
