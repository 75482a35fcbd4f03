"""Optuna proposes; the journal remembers. With optuna_study.py, the only file that imports optuna.

The Optuna study is rebuilt from the journal whenever a sweep starts, into `optuna.log` in the study folder, which
optuna-dashboard opens. Each proposal uses a sampler made afresh from (study seed, trial number), so that a resumed
sweep asks what the unbroken one would have asked, given the same finished trials (NSGA-II excepted: it draws from its
parents in an order that only the process which chose them knows).
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.domains import Choice, Domain, Integer, Interval
from sweep.errors import StudyError, counted
from sweep.objective import WORST, Goal
from sweep.orchestration.optuna_study import Log, OptunaStudy
from sweep.orchestration.turns import Turn, enqueued
from sweep.search_space import merged
from sweep.seeding import derive
from sweep.study import Study
from sweep.tracking.ledger import TrialRecord

optuna.logging.set_verbosity(optuna.logging.ERROR)

VALIDITY = "validity"  # the constraint that a suspect trial violates
MODEL_BASED = ("tpe", "gp")  # the others need every trial, or none


class Sampler:
    """A study's Optuna side, by ask and tell.

    `inherited` are another study's trials, which Optuna holds before this one's first.
    """

    def __init__(
        self, study: Study, folder: Path, trials: Iterable[TrialRecord] = (), inherited: Sequence[TrialRecord] = ()
    ) -> None:
        self.study = study
        self._distributions = {name: distribution(domain) for name, domain in study.space.domains().items()}
        self.optuna = OptunaStudy(study, Log(folder / "optuna.log"), self._distributions)
        self._inherited = len(inherited)
        for number, trial in enumerate([*inherited, *trials]):
            self._restore(number, trial)

    def ask(self, number: int, turn: Turn | None = None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The next trial's configuration, its parameters, and the sampler's notes on it.

        Where defenses are compared, a proposal for one depends on nothing but its own trials.
        """
        turn = turn or Turn(None, number)
        given = enqueued(self.study, turn)
        if given is None and turn.branch is not None:
            given = {"defense": turn.branch}
        replacements: dict[str, Any] = {}
        if given is not None:
            fixed, replacements = self.study.space.constrain(given)
            self.optuna.enqueue(self._inherited + number, fixed)
        self.optuna.sampler = make_sampler(self.study, turn)
        with warnings.catch_warnings(), self.optuna.thinned(self.study.sampler in MODEL_BASED, turn.branch):
            warnings.simplefilter("ignore")  # a model that fits badly proposes badly; it does not fail
            trial = self.optuna.ask()
            if trial.number != self._inherited + number:
                raise AssertionError(f"Optuna's trial {trial.number} is the journal's {self._inherited + number}")
            config = self.study.space.resolve(lambda name, domain: trial._suggest(name, self._distributions[name]))
        self.optuna.remember(trial.number, None, turn.branch)
        frozen = self.optuna._storage.get_trial(trial._trial_id)  # samplers note things in the storage only
        return merged(config, replacements), dict(frozen.params), dict(frozen.system_attrs)

    def promote(self, trial: TrialRecord) -> None:
        """Take in a trial that nobody proposed: a known configuration, trained again with a longer schedule."""
        self._restore(self._inherited + trial.number, trial)

    def tell(self, trial: TrialRecord) -> None:
        """Tell how a trial ended: once for each trial."""
        number = self._inherited + trial.number
        storage, study_id = self.optuna._storage, self.optuna._study_id
        live = optuna.trial.Trial(self.optuna, storage.get_trial_id_from_study_id_trial_number(study_id, number))
        for step, value in _intermediate(trial, self.study.objective).items():
            live.report(value, step)
        for name, violation in _violations(trial, self.study).items():
            live.set_constraint(name, violation)
        state, values = _outcome(trial, self.study)
        self.optuna.tell(number, values, state)
        self._remember(number, trial)

    def states(self) -> Counter[str]:
        """This study's own trials, by the state that Optuna holds them in."""
        return Counter(trial.state.name.lower() for trial in self._own())

    def disagreements(self, trials: Iterable[TrialRecord]) -> Iterator[str]:
        """Wherever Optuna holds another trial, state, value or parameter than the journal's trials, a sentence."""
        known, held = list(trials), self._own()
        if len(known) != len(held):
            yield f"the journal has {counted(len(known), 'trial')}, Optuna {len(held)}"
        for trial, other in zip(known, held, strict=False):
            state, values = _outcome(trial, self.study) if trial.end else (TrialState.RUNNING, None)
            if other.state != state:
                yield f"trial {trial.number} is {trial.end or 'in flight'}, for Optuna it is {other.state.name.lower()}"
            elif state == TrialState.COMPLETE and other.values != values:
                yield f"trial {trial.number} came to {values}, for Optuna to {other.values}"
            if other.params != trial.params:
                yield f"trial {trial.number} has the parameters {trial.params}, for Optuna {other.params}"

    def _own(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)[self._inherited :]

    def _restore(self, number: int, trial: TrialRecord) -> None:
        """What `ask` and `tell` would have left, in one write: they take one for each report."""
        objective = self.study.objective
        state, values = _outcome(trial, self.study) if trial.end else (TrialState.RUNNING, None)
        intermediate = _intermediate(trial, objective) if trial.end else {}
        if state == TrialState.PRUNED and intermediate:
            values = [intermediate[max(intermediate)]]  # as Optuna values a trial that it is told was pruned
        try:
            found = create_trial(
                state=state,
                values=values,
                params=trial.params,
                distributions={name: self._distributions[name] for name in trial.params},
                system_attrs=dict(trial.attributes),
                intermediate_values=intermediate,
                constraints=_violations(trial, self.study) if trial.end else None,
            )
        except (KeyError, ValueError) as error:
            reason = f"there is no parameter {error}" if isinstance(error, KeyError) else str(error)
            raise StudyError(
                f"trial {trial.number} of the journal is none of this study's space ({reason}): the journal or "
                "study.json is another study's; restore both from one copy"
            ) from None
        self.optuna.add_trial(found)
        self._remember(number, trial)

    def _remember(self, number: int, trial: TrialRecord) -> None:
        ranks = [WORST if trial.is_suspect else trial.rank(goal) for goal in self.study.objective]
        branch = trial.params[self.study.compare] if self.study.compare else None
        shorter = None if trial.promoted_from is None else self._inherited + trial.promoted_from
        self.optuna.remember(number, ranks if trial.end else None, branch, shorter)


def make_sampler(study: Study, turn: Turn) -> BaseSampler:
    """The study's sampler for one proposal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns of experimental options, once a sampler
        branch = () if turn.branch is None else (turn.branch,)
        return _make_sampler(study, derive(study.seed, "sampler", *branch, turn.place) % 2**32)


def _make_sampler(study: Study, seed: int) -> BaseSampler:
    startup = study.startup_trials
    match study.sampler:
        case "tpe":
            return _Tpe(n_startup_trials=startup, multivariate=True, group=True, seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(n_startup_trials=startup, deterministic_objective=False, seed=seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=max(startup, 2), seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "cma_es":
            return optuna.samplers.CmaEsSampler(n_startup_trials=startup, seed=seed)
        case "grid":
            return _Grid(seed=seed)


class _Tpe(optuna.samplers.TPESampler):
    """Made afresh for each proposal, it would find from every trial anew which parameters are met together."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        assert isinstance(study, OptunaStudy)
        with study.one_of_a_kind():
            return super().infer_relative_search_space(study, trial)


class _Grid(optuna.samplers.BruteForceSampler):
    """Every configuration once, conditional ones included. The sweep itself counts how many there are and ends."""

    def after_trial(self, *args: Any, **kwargs: Any) -> None:
        """Optuna would stop its own loop here; there is none under ask and tell."""


def distribution(domain: Domain) -> BaseDistribution:
    """A domain as Optuna knows it."""
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Interval):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    return CategoricalDistribution(domain.representatives())


def _outcome(trial: TrialRecord, study: Study) -> tuple[TrialState, list[float] | None]:
    """Optuna's view of an end. Diverging is the configuration's doing, and the sampler must learn to stay away from it:
    it is told the worst value. So it is of a suspect trial where it knows no constraints (CMA-ES). A failure of the
    machine says nothing about the configuration."""
    objective = study.objective
    if trial.end == "diverged" or (trial.is_suspect and study.sampler == "cma_es"):
        return TrialState.COMPLETE, [_worst(goal) for goal in objective]
    if trial.end == "stopped":
        return TrialState.PRUNED, None
    metrics = trial.best["metrics"] if trial.end == "completed" and trial.best else {}
    values = [metrics.get(goal.metric, math.nan) for goal in objective]
    return (TrialState.COMPLETE, values) if all(map(math.isfinite, values)) else (TrialState.FAIL, None)


def _worst(goal: Goal) -> float:
    """The worst value there is: of an accuracy 0 or 1, else infinity, which Optuna ranks last."""
    if goal.metric.endswith("accuracy"):
        return 0.0 if goal.direction == "maximize" else 1.0
    return -math.inf if goal.direction == "maximize" else math.inf


def _intermediate(trial: TrialRecord, objective: Sequence[Goal]) -> dict[int, float]:
    """The objective by epoch; Optuna keeps such values for one objective only."""
    if len(objective) > 1:
        return {}
    values = {epoch: metrics.get(objective[0].metric, math.nan) for epoch, metrics in trial.reports.items()}
    return {epoch: value for epoch, value in values.items() if math.isfinite(value)}


def _violations(trial: TrialRecord, study: Study) -> dict[str, float]:
    """Each bound's violation at the epoch that counts; a bound that nothing was measured for is fully violated.

    That the trial can be believed is a bound as well, and every trial has it: GP wants the same bounds of all.
    """
    if study.sampler == "cma_es":  # which warns of constraints, and is given none
        return {}
    metrics = trial.best["metrics"] if trial.best else {}
    found = {VALIDITY: 1.0 if trial.is_suspect else -1.0}
    for goal in study.objective:
        for name, value in goal.violations(metrics).items():
            found[name] = max(value if math.isfinite(value) else 1.0, found.get(name, -math.inf))
    return found
