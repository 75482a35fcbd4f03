"""Figures of what mattered: importances, slices, parallel coordinates. None without data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from sweep.analysis.report import theme
from sweep.analysis.report.accuracy import kind, value
from sweep.domains import Choice, Domain, Integer, LogUniform
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

_TICKS = 6  # values of a parameter up to which each has its own
_APART = 0.1  # decades between a tick and the end of its axis
_SLICES = 12  # parameters that are shown; those that most trials have come first


def importance(ledger: Ledger, shares: Mapping[str, Mapping[str, float]]) -> go.Figure | None:
    """Bars of each parameter's share, a group for each defense that had enough completed trials."""
    if not shares:
        return None
    rows = sum(len(found) for found in shares.values())
    figure = theme.empty("share of the spread that it explains", height=110 + 34 * rows)
    for defense, found in shares.items():
        figure.add_bar(
            x=list(found.values()),
            y=[name.removeprefix(f"defense.{defense}.").replace(" (", "<br>(") for name in found],
            orientation="h",
            name=defense,
            marker_color=theme.colours(ledger)[defense],
            hovertemplate="%{y}: %{x:.3f}",
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(showlegend=True)  # of a single defense, too
    return figure


def slices(study: Study, ledger: Ledger) -> list[go.Figure]:
    """The objective against each parameter that varied, a panel each."""
    trials, domains = [trial for trial in ledger if trial.best], study.space.domains()
    having = {name: [trial for trial in trials if name in trial.params] for name in domains if name != "defense"}
    varied = [name for name, some in having.items() if len({str(trial.params[name]) for trial in some}) > 1]
    varied.sort(key=lambda name: -len(having[name]))
    return [_slice(study, ledger, name, having[name], domains[name]) for name in varied[:_SLICES]]


def parallel(study: Study, ledger: Ledger) -> go.Figure | None:
    """The parameters that every trial has, against the objective; a branch's own are in the slices."""
    trials = [trial for trial in ledger if trial.best]
    if len(trials) < 2:  # one line shows no relation
        return None
    domains = study.space.domains()
    shared = [name for name in trials[0].params if all(name in trial.params for trial in trials)]
    dimensions = [_dimension(name, [trial.params[name] for trial in trials], domains.get(name)) for name in shared]
    values = [value(trial, study.objective[0].metric) for trial in trials]
    dimensions.append({"label": "objective", "values": values})
    figure = theme.empty(height=400)
    line = {"color": values, "colorscale": "Viridis", "showscale": False}
    figure.add_trace(go.Parcoords(dimensions=dimensions, line=line))
    figure.update_layout(margin={"l": 90, "r": 60, "t": 50, "b": 25})
    return figure


def _slice(study: Study, ledger: Ledger, name: str, trials: Sequence[TrialRecord], domain: Domain) -> go.Figure:
    metric, figure = study.objective[0].metric, theme.empty(name.removeprefix("defense."), height=270)
    for defense, colour in theme.colours(ledger).items():
        some = [trial for trial in trials if trial.defense == defense]
        if some:
            figure.add_scatter(
                x=[_shown(trial.params[name]) for trial in some],
                y=[value(trial, metric) for trial in some],
                mode="markers",
                name=defense,
                marker={"color": colour, "symbol": [theme.SYMBOLS[kind(trial)] for trial in some], "size": 7},
                text=[f"trial {trial.number}" for trial in some],
                hovertemplate="%{text}: %{x}, %{y:.4f}",
            )
    figure.update_layout(showlegend=False)
    known = sorted({trial.params[name] for trial in trials}, key=str if not isinstance(domain, LogUniform) else None)
    if isinstance(domain, LogUniform):
        decades = math.log10(max(known) / min(known)) if known else 1.0
        figure.update_xaxes(type="log", dtick=1 if decades > 1.5 else "D2", tickformat="~g")
    elif isinstance(domain, Choice | Integer) and len(known) <= _TICKS and all(_is_number(found) for found in known):
        figure.update_xaxes(tickvals=known)
    return figure


def _shown(found: Any) -> Any:
    return found if _is_number(found) else str(found)


def _dimension(name: str, values: Sequence[Any], domain: Domain | None) -> dict[str, Any]:
    if isinstance(domain, LogUniform):
        powers = [math.log10(number) for number in values]
        low, high = min(powers), max(powers)
        whole = [power for power in range(math.floor(low), 1 + math.ceil(high)) if low + _APART < power < high - _APART]
        ticks = [low, *whole, high]  # the axis is drawn from its first tick to its last
        return {"label": name, "values": powers, "tickvals": ticks, "ticktext": [f"{10.0**tick:.2g}" for tick in ticks]}
    if all(_is_number(found) for found in values):
        return {"label": name, "values": values}
    texts = sorted({str(found) for found in values})
    coded = [texts.index(str(found)) for found in values]
    return {"label": name, "values": coded, "tickvals": list(range(len(texts))), "ticktext": texts}


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)
