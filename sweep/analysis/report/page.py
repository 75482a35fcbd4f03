"""The report: one HTML file that needs no network, from a study folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from sweep.analysis import confirm, importance
from sweep.analysis.confirm import Confirmed
from sweep.analysis.report import figures, words
from sweep.checkpoint import write_text
from sweep.errors import DataError, StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.ledger import Ledger

FILE_NAME = "report.html"
_ENVIRONMENT = Environment(
    loader=PackageLoader("sweep.analysis.report", "."), autoescape=True, undefined=StrictUndefined
)
_READING = {  # what to look for in each figure
    "Confirmed": "What the search said (diamond), and what fresh seeds say on unseen images: the rest was luck.",
    "Clean against adversarial accuracy": "Every trial at the epoch that counts. Open: stopped early. Cross: suspect.",
    "At equal cost": "The best so far of each defense, by what its trials have cost. Compare at one and the same cost.",
    "Learning curves": "Each defense's best trial. A star marks its best epoch: a fall after it is robust overfitting.",
    "What mattered": "The share of the objective's spread that a parameter explains, in a defense's completed trials.",
    "Parameters": "The parameters that all trials share; drag along an axis to choose.",
}


def write(folder: StudyFolder) -> Path:
    """Write the report of a study, whether or not it is finished; gives its path."""
    study, ledger = folder.study(), folder.ledger()
    if study.confirms:
        raise StudyError(
            f"{study.name} confirms {study.confirms.study}: `sweep report {study.confirms.study}` tells it"
        )
    if not ledger.trials:
        raise StudyError(f"{folder.path} has no trials to report yet; `sweep resume {study.name}` runs them")
    found = _confirmations(folder, ledger)
    rungs = words.rungs(study, ledger, folder.journal)
    header, rows = words.table(study, ledger)
    text = _ENVIRONMENT.get_template("page.html.j2").render(
        study=study,
        created=folder.record()["created"],
        plotly=get_plotlyjs(),
        asked=words.asked(study),
        headline=words.headline(study, ledger, found, _validation_images(study)),
        counts=", ".join(f"{count} {end}" for end, count in ledger.counts().most_common()),
        hours=ledger.hours,
        gradient_evaluations=ledger.gradient_evaluations,
        header=header,
        rows=rows,
        rungs=rungs,
        trust=words.trust(rungs),
        failures=words.failures(ledger),
        checked=sum(trial.validity is not None for trial in ledger),
        suspects=[(trial.number, trial.defense) for trial in ledger.suspects],
        figures=_drawn(study, ledger, found),
    )
    path = folder.path / FILE_NAME
    write_text(path, text)
    return path


def _drawn(study: Study, ledger: Ledger, found: Sequence[Confirmed]) -> list[tuple[str, str, str]]:
    """(title, what to read in it, HTML) of every figure that has something to show."""
    drawn = [
        ("Confirmed", figures.confirmed(found)),
        ("Clean against adversarial accuracy", figures.clean_against_adversarial(study, ledger)),
        ("At equal cost", figures.best_so_far(study, ledger)),
        ("Learning curves", figures.learning_curves(study, ledger)),
        ("What mattered", figures.importance(importance.importances(study, ledger))),
        ("Parameters", figures.parallel(study, ledger)),
    ]
    return [(title, _READING[title], _html(figure)) for title, figure in drawn if figure is not None]


def _html(figure: go.Figure) -> str:
    config = {"responsive": True, "displaylogo": False}
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return text


def _confirmations(folder: StudyFolder, ledger: Ledger) -> list[Confirmed]:
    """What the newest confirmation of this study found, if there is one and something completed."""
    for opening in reversed(ledger.confirmations):
        path = folder.path.parent / opening["name"]
        if (path / "study.json").exists() and (found := confirm.outcome(StudyFolder(path))):
            return found
    return []


def _validation_images(study: Study) -> int | None:
    try:
        return len(study.trial_config(next(study.space.corners()), 0).dataset.load().validation)
    except DataError:
        return None
