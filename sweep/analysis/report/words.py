"""What a report says in sentences, from a study and its journal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from sweep.analysis.confirm import verdict
from sweep.analysis.export import choose
from sweep.analysis.export.chosen import Chosen, Confirmation
from sweep.analysis.report.accuracy import CLEAN
from sweep.analysis.results import best_by_defense, hypervolume, pareto
from sweep.errors import StudyError, counted
from sweep.objective import Maximize
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord


def asked(study: Study) -> list[tuple[str, str]]:
    """What was asked, as label and value."""
    goal, tree = study.objective[0], study.space.tree
    bounds = [f"{name} {bound}" for name, bound in goal.subject_to.items()]
    limits = [counted(study.budget.trials, "trial")]
    limits += (
        [counted(study.budget.gradient_evaluations, "gradient evaluation")] if study.budget.gradient_evaluations else []
    )
    limits += [counted(study.budget.hours, "hour")] if study.budget.hours else []
    stopping = "none"
    if rule := study.early_stopping:
        resource = rule.resource.replace("_", " ").removesuffix("s" if rule.grace_period == 1 else "")
        goes_on = "is trained again, for longer" if rule.kind == "promotion" else "goes on"
        stopping = f"ASHA: one in {rule.reduction_factor} {goes_on}, from {rule.grace_period:,} {resource}"
    return [
        ("objective", ", with ".join([f"{goal.direction} {goal.metric}", *bounds])),
        ("judged within", _text(tree["threat_model"])),
        ("data and model", f"{_text(tree['dataset'])}; {_text(tree['model'])}"),
        ("searched", f"{counted(len(study.space.domains()), 'parameter')}, by {study.sampler}"),
        ("budget", ", ".join(limits)),
        ("early stopping", stopping),
        *([("compared", f"by {study.compare}: each gets the same gradient evaluations")] if study.compare else []),
        ("fingerprint", study.fingerprint),
    ]


def headline(study: Study, ledger: Ledger, confirmation: Confirmation | None, validation: int | None) -> list[str]:
    """What won and by how much, in sentences. `validation` is the number of validation images, where known."""
    if confirmation:
        return sentences(verdict(confirmation.folder.study(), confirmation.found))
    goal = study.objective[0]
    ranked = best_by_defense(ledger, goal)
    if not ranked:
        return [f"No {'believed ' if ledger.suspects else ''}trial completed, so nothing can be said."]
    best, metric = [trial for trial in ranked if trial.rank(goal)[0] == 1], goal.metric
    if not best:
        bounds = " and ".join(f"{name} {bound}" for name, bound in goal.subject_to.items())
        return [f"No completed trial keeps the objective's bounds ({bounds}), so none is the best."]
    reached = [_with_error(trial, metric, validation) for trial in best[:2]]
    said = [f"Trial {best[0].number} ({best[0].defense}) has the best {metric}: {reached[0]}."]
    said += [f"Next is {trial.defense} (trial {trial.number}): {reached[1]}." for trial in best[1:2]]
    said.append(
        "These are the best of many trials on the very images that chose them, one seed each: "
        f"`sweep confirm {study.name}` says what is left of them."
    )
    return said


def sentences(parts: Sequence[str]) -> list[str]:
    """Each as a sentence, from its capital to its full stop."""
    return [f"{part[0].upper()}{part[1:]}." for part in parts]


def front(study: Study, ledger: Ledger) -> str:
    """The trials that no believed one beats in both accuracies, and how much lies below them."""
    goals = (study.objective[0], Maximize(CLEAN))
    best = [trial for trial in pareto(ledger, goals) if trial.best and CLEAN in trial.best["metrics"]]
    if study.objective[0].direction != "maximize" or not best:
        return ""
    points = [(trial.best["metrics"][CLEAN], trial.best["metrics"][goals[0].metric]) for trial in best if trial.best]
    numbers = ", ".join(str(trial.number) for trial in best)
    who = f"Trial {numbers} is" if len(best) == 1 else f"Trials {numbers} are"
    return (
        f"{who} on the front: no believed trial is better in both. Its hypervolume, the area below it down to (0, 0), "
        f"is {hypervolume(points):.4f} of at most 1."
    )


def overfitting(study: Study, ledger: Ledger) -> str:
    """How much each defense's best trial had lost by its last epoch."""
    metric, told = study.objective[0].metric, []
    for trial in best_by_defense(ledger, study.objective[0]):
        judged = [epoch for epoch in sorted(trial.reports) if metric in trial.reports[epoch]]
        if trial.best and metric in trial.best["metrics"]:
            change = trial.reports[judged[-1]][metric] - trial.best["metrics"][metric]
            told.append(f"{trial.defense} {change:+.3f} since epoch {trial.best['epoch']} of {judged[-1]}")
    return f"From the epoch that counts to the last: {'; '.join(told)}." if told else ""


def again(folder: StudyFolder, study: Study, ledger: Ledger) -> list[tuple[str, str]]:
    """Commands, and what each does."""
    name, commands = folder.path.name, []
    if not _is_refused(choose.best, folder):
        commands += [
            (f"sweep export {name} --best --to best/", "the best trial's configuration, weights and figures"),
            ("sweep trial best/", "that trial again, alone: the same figures to the last digit on CPUs of one kind"),
        ]
    if not ledger.confirmations:
        commands += [(f"sweep confirm {name}", "the best few with fresh seeds on the test split: what may be claimed")]
    elif not _is_refused(choose.confirmed, folder):
        commands += [(f"sweep export {name} --confirmed --to confirmed/", "what the confirmation found best")]
    return [*commands, (f"sweep report {name}", "this page")]


def _is_refused(choice: Callable[[StudyFolder, Ledger], Chosen], folder: StudyFolder) -> bool:
    try:
        choice(folder, folder.ledger())
    except StudyError:
        return True
    return False


def _with_error(trial: TrialRecord, metric: str, images: int | None) -> str:
    value = trial.best["metrics"][metric] if trial.best else math.nan
    if images is None or not metric.endswith("accuracy"):
        return f"{value:.4f}"
    return f"{value:.3f} ± {math.sqrt(value * (1 - value) / images):.3f} (standard error of {counted(images, 'image')})"


def _text(component: Any) -> str:
    """A component of the space as a name and its parameters."""
    if not isinstance(component, dict):
        return str(component)
    rest = ", ".join(f"{key} {value}" for key, value in component.items() if key != "name")
    return f"{component.get('name')}" + (f" ({rest})" if rest else "")
