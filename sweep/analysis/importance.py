"""What mattered: how much of the objective's spread each parameter explains, within each defense.

Parameters of different branches are never in the same trial, so one ranking over all of them would compare what cannot
be compared. A parameter that only some of a defense's trials have (a schedule's own) is weighed among those, and says
so. Importance is PED-ANOVA's (Watanabe et al. 2023), on completed trials only: a stopped trial's value is of another
fidelity, and a suspect one's cannot be believed.
"""

from __future__ import annotations

import warnings

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from sweep.errors import counted
from sweep.orchestration.sampler import distribution
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

FEWEST = 8  # completed trials below which nothing is said


def importances(study: Study, ledger: Ledger) -> dict[str, dict[str, float]]:
    """By defense, the share in [0, 1] of each parameter that varies: among all its completed trials, or, named with
    their number, among those that have it."""
    found = {}
    for defense in sorted({trial.defense for trial in ledger}):
        believed = [trial for trial in ledger if trial.defense == defense and not trial.is_suspect]
        trials = [trial for trial in believed if trial.end == "completed" and trial.best]
        if len(trials) >= FEWEST:
            shares = _within(study, trials) | _conditional(study, trials)
            if shares:
                found[defense] = shares
    return found


def _conditional(study: Study, trials: list[TrialRecord]) -> dict[str, float]:
    """Shares of the parameters that not all of these trials have."""
    shares = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.params):
        having = [trial for trial in trials if name in trial.params]
        if FEWEST <= len(having) < len(trials) and (share := _within(study, having).get(name)) is not None:
            shares[f"{name} (of {counted(len(having), 'trial')})"] = share
    return shares


def _within(study: Study, trials: list[TrialRecord]) -> dict[str, float]:
    """Shares of the parameters that all of these trials have and that vary."""
    goal, domains = study.objective[0], study.space.domains()
    names = [name for name in trials[0].params if all(name in trial.params for trial in trials)]
    varied = [name for name in names if len({str(trial.params[name]) for trial in trials}) > 1]
    optimised = optuna.create_study(direction=goal.direction)
    for trial in trials:
        value = trial.best["metrics"][goal.metric] if trial.best else 0.0
        optimised.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=value,
                params={name: trial.params[name] for name in varied},
                distributions={name: distribution(domains[name]) for name in varied},
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in Optuna
        return dict(get_param_importances(optimised, evaluator=PedAnovaImportanceEvaluator()))
