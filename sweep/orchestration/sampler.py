"""Optuna proposes; the journal remembers. This is the only file that imports optuna.

The Optuna study is rebuilt from the journal whenever a sweep starts, into `optuna.log` in the study folder, which
optuna-dashboard opens. Each proposal uses a sampler made afresh from (study seed, trial number), so that a resumed
sweep asks what the unbroken one would have asked, given the same finished trials (NSGA-II excepted: it draws from its
parents in an order that only the process which chose them knows).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState, create_trial

from sweep.domains import Choice, Domain, Integer, Interval
from sweep.objective import Goal
from sweep.search_space import merged
from sweep.seeding import derive
from sweep.study import Study
from sweep.tracking.ledger import TrialRecord

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Sampler:
    """A study's Optuna side, by ask and tell."""

    def __init__(self, study: Study, folder: Path, trials: Iterable[TrialRecord] = ()) -> None:
        self.study = study
        log = folder / "optuna.log"
        for old in (log, *folder.glob(f"{log.name}.lock*")):  # a killed process's lock would be waited for without end
            old.unlink(missing_ok=True)
        self.optuna = optuna.create_study(
            study_name=study.name,
            storage=JournalStorage(JournalFileBackend(str(log))),
            directions=[goal.direction for goal in study.objective],
            sampler=make_sampler(study, 0),
        )
        self._domains = study.space.domains()
        for trial in trials:
            self._restore(trial)

    def ask(self, number: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The next trial's configuration, its parameters, and the sampler's notes on it."""
        replacements: dict[str, Any] = {}
        if number < len(self.study.enqueue):
            fixed, replacements = self.study.space.constrain(self.study.enqueue[number])
            self.optuna.enqueue_trial(fixed)
        self.optuna.sampler = make_sampler(self.study, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model that fits badly proposes badly; it does not fail
            trial = self.optuna.ask()
            if trial.number != number:
                raise AssertionError(f"Optuna's trial {trial.number} is the journal's {number}")
            config = self.study.space.resolve(lambda name, domain: trial._suggest(name, distribution(domain)))
        frozen = self.optuna._storage.get_trial(trial._trial_id)  # samplers note things in the storage only
        return merged(config, replacements), dict(frozen.params), dict(frozen.system_attrs)

    def tell(self, trial: TrialRecord) -> None:
        """Tell how a trial ended: once for each trial."""
        storage, study_id = self.optuna._storage, self.optuna._study_id
        live = optuna.trial.Trial(self.optuna, storage.get_trial_id_from_study_id_trial_number(study_id, trial.number))
        for step, value in _intermediate(trial, self.study.objective).items():
            live.report(value, step)
        for name, violation in _violations(trial, self.study.objective).items():
            live.set_constraint(name, violation)
        state, values = _outcome(trial, self.study.objective)
        self.optuna.tell(trial.number, values, state)

    def _restore(self, trial: TrialRecord) -> None:
        """What `ask` and `tell` would have left, in one write: they take one for each report."""
        objective = self.study.objective
        state, values = _outcome(trial, objective) if trial.end else (TrialState.RUNNING, None)
        intermediate = _intermediate(trial, objective) if trial.end else {}
        if state == TrialState.PRUNED and intermediate:
            values = [intermediate[max(intermediate)]]  # as Optuna values a trial that it is told was pruned
        self.optuna.add_trial(
            create_trial(
                state=state,
                values=values,
                params=trial.params,
                distributions={name: distribution(self._domains[name]) for name in trial.params},
                system_attrs=dict(trial.attributes),
                intermediate_values=intermediate,
                constraints=_violations(trial, objective) if trial.end else None,
            )
        )


def make_sampler(study: Study, number: int) -> BaseSampler:
    """The study's sampler for one proposal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns of experimental options, once a sampler
        return _make_sampler(study, derive(study.seed, "sampler", number) % 2**32)


def _make_sampler(study: Study, seed: int) -> BaseSampler:
    startup = study.startup_trials
    match study.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=startup, multivariate=True, group=True, seed=seed)
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


def _outcome(trial: TrialRecord, objective: Sequence[Goal]) -> tuple[TrialState, list[float] | None]:
    """Optuna's view of an end. Diverging is the configuration's doing, and the sampler must learn to stay away from it:
    it is told the worst value. A failure of the machine says nothing about the configuration."""
    if trial.end == "diverged":
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


def _violations(trial: TrialRecord, objective: Sequence[Goal]) -> dict[str, float]:
    """Each bound's violation at the epoch that counts; a bound that nothing was measured for is fully violated."""
    metrics = trial.best["metrics"] if trial.best else {}
    found: dict[str, float] = {}
    for goal in objective:
        for name, value in goal.violations(metrics).items():
            found[name] = max(value if math.isfinite(value) else 1.0, found.get(name, -math.inf))
    return found
