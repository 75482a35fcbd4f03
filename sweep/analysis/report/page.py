"""The report: one HTML file that needs no network, from a study folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from sweep.analysis import comparison, kept, probes
from sweep.analysis.export import chosen
from sweep.analysis.findings import doubts, failures, named
from sweep.analysis.opening import history, reconsidered
from sweep.analysis.probes import Probe
from sweep.analysis.report import examples, stopping, tables, theme, words
from sweep.analysis.report.examples import Exhibit
from sweep.analysis.report.gallery import Drawn, gallery
from sweep.checkpoint import write_text
from sweep.errors import DataError, StudyError, counted
from sweep.orchestration.folder import StudyFolder
from sweep.registry import build
from sweep.study import Study
from sweep.tracking.ledger import Ledger, readable

FILE_NAME = "report.html"
_ENVIRONMENT = Environment(
    loader=PackageLoader("sweep.analysis.report", "."), autoescape=True, undefined=StrictUndefined
)
_ENVIRONMENT.filters["marked"] = lambda text: Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@dataclass(frozen=True)
class Written:
    """A report, and its figures by name, from which pictures can be made."""

    path: Path
    figures: dict[str, Drawn]
    exhibits: list[Exhibit]


@dataclass(frozen=True)
class _Networks:
    """What kept networks say."""

    contenders: dict[int, list[Probe]]  # by the trial's number in the search, the best first
    matrix: list[Probe]
    compared: list[comparison.Outcome]
    missing: list[str]


def write(folder: StudyFolder, *, measure: bool = True, say: Callable[[str], None] = lambda _: None) -> Written:
    """Write the report of a study, whether or not it is finished.

    Networks that were kept are attacked for it, once, on the validation split; without `measure`, what was measured
    before is shown. `say` is told what takes time.
    """
    study, ledger = folder.study(), reconsidered(folder)
    if study.confirms:
        raise StudyError(
            f"{study.name} confirms {study.confirms.study}: `sweep report {study.confirms.study}` tells it"
        )
    if not ledger.trials:
        raise StudyError(f"{folder.path} has no trials to report yet; `sweep resume {study.name}` runs them")
    confirmation = chosen.confirmation(folder, ledger)
    found = confirmation.found if confirmation else []
    networks = _looked_at(folder, study, ledger, confirmation, measure, say)
    judged = build("threat_model", study.space.tree["threat_model"]).epsilon
    figures = gallery(study, ledger, found, networks.contenders, networks.matrix, judged)
    exhibits = examples.exhibits(networks.contenders)
    path = folder.path / FILE_NAME
    write_text(path, _rendered(folder, study, ledger, confirmation, networks, figures, exhibits))
    return Written(path, figures, exhibits)


def _rendered(
    folder: StudyFolder,
    study: Study,
    ledger: Ledger,
    confirmation: chosen.Confirmation | None,
    networks: _Networks,
    figures: dict[str, Drawn],
    exhibits: list[Exhibit],
) -> str:
    rungs = stopping.rungs(study, folder.ledger(), folder.journal)  # as they counted before any confirmation
    refuted = [trial.number for trial in ledger if trial.refuted]
    record, found = folder.record(), confirmation.found if confirmation else []
    return _ENVIRONMENT.get_template("page.html.j2").render(
        study=study,
        record=record,
        plotly=get_plotlyjs(),
        asked=words.asked(study),
        headline=words.headline(study, ledger, confirmation, _validation_images(study))
        + words.sentences(history(ledger)),
        counts=", ".join(f"{count} {end}" for end, count in ledger.counts().most_common()),
        ledger=ledger,
        by_defense=tables.by_defense(study, ledger),
        found=found,
        confirmed=tables.confirmed(found),
        front=words.front(study, ledger),
        checked=sum(trial.validity is not None for trial in ledger),
        refuted=refuted,
        suspects=len(ledger.suspects) - len(refuted),
        doubts=doubts(ledger),
        named=named,
        counted=counted,
        rungs=rungs,
        trust=stopping.trust(rungs),
        overfitting=words.overfitting(study, ledger),
        exhibits=exhibits,
        failures=[
            (end, [trial.number for trial in some], readable(some[0].error or {})) for end, some in failures(ledger)
        ],
        cost=tables.cost(ledger),
        equal=tables.at_equal_cost(study, networks.compared),
        equal_words=comparison.verdict(networks.compared),
        colours=theme.colours(ledger),
        again=words.again(folder, study, ledger),
        missing=networks.missing,
        figures=figures,
        json=_json,
        config=theme.CONFIG,
    )


def _json(panel: go.Figure) -> str:
    """A figure as JSON that can stand in a page: nothing in it ends the script that it stands in."""
    text: str = panel.to_json()
    return text.replace("<", "\\u003c")


def _looked_at(
    folder: StudyFolder,
    study: Study,
    ledger: Ledger,
    confirmation: chosen.Confirmation | None,
    measure: bool,
    say: Callable[[str], None],
) -> _Networks:
    pairs = comparison.pairs(study, ledger)
    contenders = kept.contenders(folder, study, ledger, confirmation.folder if confirmation else None)
    compared = kept.of_search(folder, [trial for pair in pairs for trial in (pair.first, pair.second) if trial])
    matrix = kept.of_search(folder, kept.across_radii(ledger))
    found, missing = probes.probe(folder.path, [*contenders, *compared, *matrix], measure=measure, say=say)
    by_trial: dict[int, list[Probe]] = {}
    for trained in contenders:
        if trained.folder in found:
            by_trial.setdefault(trained.trial, []).append(found[trained.folder])
    verdicts = {
        trained.trial: found[trained.folder].at_judged.numpy() for trained in compared if trained.folder in found
    }
    return _Networks(
        contenders=by_trial,
        matrix=[found[trained.folder] for trained in matrix if trained.folder in found],
        compared=comparison.outcomes(study, pairs, verdicts),
        missing=missing,
    )


def _validation_images(study: Study) -> int | None:
    try:
        return len(study.trial_config(next(study.space.corners()), 0).dataset.load().validation)
    except DataError:
        return None
