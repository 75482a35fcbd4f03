"""What a study's run says of itself in MLflow, in Markdown: what was asked, what came out, where the report is."""

from __future__ import annotations

from sweep.errors import counted
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord
from sweep.tracking.view import page

_WORST = "validation/worst_case/adversarial_accuracy"


def description(folder: StudyFolder, run: str, experiment: str, *, is_over: bool) -> str:
    """Of the study's own run; with its results once a session of it is over. Raises StudyError, JournalError."""
    study = folder.study()
    asked = study.description.partition("\n\n")[0]
    parts = [asked] if asked else []
    if study.confirms:
        parts.append(_confirms(study))
    else:  # before all else: MLflow folds what is long
        parts.append(
            f"**[Report]({_report(run, experiment)})**, once `sweep report {study.name}` has written it. Sort the "
            f"trials by `best/{study.objective[0].metric}`; `tags.end = 'completed' and tags.validity = 'valid'` "
            "leaves those that may win."
        )
    if is_over:
        parts += _results(study, folder.ledger())
    if not study.confirms:
        parts.append(_table(("", ""), _asked(study)))
    return "\n\n".join(parts)


def welcome(study: Study, run: str, experiment: str, journal: str) -> str:
    """A line for the experiment, whose page shows its note above the runs: where a study's own run and report are."""
    return (
        f"**{study.name}**: [the best first]({page(experiment, journal)}), [what was asked, and what came out]"
        f"(#/experiments/{experiment}/runs/{run}?workflowType=machine_learning), [report]({_report(run, experiment)})"
    )


def _report(run: str, experiment: str) -> str:
    return f"#/experiments/{experiment}/runs/{run}/artifacts/report/report.html"


def _asked(study: Study) -> list[tuple[str, ...]]:
    goal, tree = study.objective[0], study.space.tree
    bounds = [
        f"{name} at least {bound.at_least:g}" if bound.at_least is not None else f"{name} at most {bound.at_most:g}"
        for name, bound in goal.subject_to.items()
    ]
    return [
        ("objective", ", with ".join([f"{goal.direction} {goal.metric}", *bounds])),
        ("judged within", _named(tree["threat_model"])),
        ("data, model", f"{_named(tree['dataset'])}; {_named(tree['model'])}"),
        (
            "searched",
            f"{counted(len(study.space.domains()), 'parameter')} by {study.sampler}, "
            f"{counted(study.budget.trials, 'trial')}",
        ),
    ]


def _confirms(study: Study) -> str:
    assert study.confirms is not None
    trials, attacks = ", ".join(map(str, study.confirms.trials)), [attack.label for attack in study.confirms.attacks]
    return (
        f"Confirms trials {trials} of {study.confirms.study} on the test split: "
        f"{counted(study.confirms.seeds, 'fresh seed')} of each, under {' and '.join(attacks)}. "
        f"`sweep status {study.name}` says what may be claimed. Each completed "
        "run holds its model."
    )


def _results(study: Study, ledger: Ledger) -> list[str]:
    counts = ", ".join(f"{count} {end}" for end, count in ledger.counts().most_common())
    goal = study.objective[0]
    best: dict[str, TrialRecord] = {}
    for trial in () if study.confirms else ledger.ranked(goal):
        best.setdefault(trial.defense, trial)
    parts = [f"{counted(len(ledger.trials), 'trial')}: {counts}."]
    if best:
        header = ("defense", "trial", goal.metric, "validation/clean_accuracy", "worst case")
        parts.append(_table(header, [_row(trial, goal.metric) for trial in best.values()]))
        parts.append(
            "The best completed trial of each defense, one seed, on the images that chose it: unconfirmed. "
            f"`sweep confirm {study.name}` says what is left of it."
        )
    return parts


def _row(trial: TrialRecord, metric: str) -> tuple[str, ...]:
    figures = (trial.best or {"metrics": {}})["metrics"] | trial.final
    values = [figures.get(name) for name in (metric, "validation/clean_accuracy", _WORST)]
    return (trial.defense, str(trial.number), *("" if value is None else f"{value:.3f}" for value in values))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows))


def _named(component: object) -> str:
    if not isinstance(component, dict):
        return str(component)
    rest = ", ".join(f"{key} {value}" for key, value in component.items() if key != "name")
    return f"{component.get('name')}" + (f" ({rest})" if rest else "")
