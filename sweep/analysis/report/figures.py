"""The report's figures: plotly, from a study and what its journal says. A figure without data is None.

Colours are a defense's everywhere (Okabe and Ito's palette, which the colour-blind can tell apart); text and grid are
of a grey that reads on white and on black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweep.analysis.confirm import Confirmed
from sweep.analysis.results import best_by_defense, pareto
from sweep.objective import Goal, Maximize
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#999933")
GREY = "#808080"
CLEAN = "validation/clean_accuracy"
_CURVES = 6  # trials whose learning curves are drawn; the rest are in epochs.parquet


def colours(ledger: Ledger) -> dict[str, str]:
    """A colour for each defense."""
    names = sorted({trial.defense for trial in ledger})
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}


def clean_against_adversarial(study: Study, ledger: Ledger) -> go.Figure | None:
    """Every trial that reported, at the epoch that counts; the front of what no believed trial beats in both."""
    goal = study.objective[0]
    shown = [trial for trial in ledger if trial.best and CLEAN in trial.best["metrics"]]
    if not shown:
        return None
    figure = _figure(xaxis_title="clean accuracy", yaxis_title=goal.metric.removeprefix("validation/"))
    for defense, colour in colours(ledger).items():
        for end, symbol in (("completed", "circle"), ("other", "circle-open"), ("suspect", "x")):
            points = [trial for trial in shown if trial.defense == defense and _kind(trial) == end]
            if points:
                name = defense if end == "completed" else f"{defense} ({'stopped' if end == 'other' else end})"
                figure.add_scatter(
                    x=[_value(trial, CLEAN) for trial in points],
                    y=[_value(trial, goal.metric) for trial in points],
                    mode="markers",
                    name=name,
                    marker={"color": colour, "symbol": symbol, "size": 9},
                    text=[f"trial {trial.number}" for trial in points],
                    hovertemplate="%{text}<br>clean %{x:.4f}<br>adversarial %{y:.4f}<extra>%{fullData.name}</extra>",
                )
    front = pareto(ledger, (goal, Maximize(CLEAN)))
    front.sort(key=lambda trial: _value(trial, CLEAN))
    figure.add_scatter(
        x=[_value(trial, CLEAN) for trial in front],
        y=[_value(trial, goal.metric) for trial in front],
        mode="lines+markers",
        name="front",
        marker={"symbol": "circle-open", "size": 14, "color": GREY},
        line={"color": GREY, "dash": "dot", "shape": "vh"},
    )
    return figure


def learning_curves(study: Study, ledger: Ledger) -> go.Figure | None:
    """Each defense's best trial: its accuracies by epoch, and below them its radius and its clean loss's weight."""
    goal, palette = study.objective[0], colours(ledger)
    shown = best_by_defense(ledger, goal)[:_CURVES]
    if not shown:
        return None
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.06)
    for trial in shown:
        epochs, colour = sorted(trial.reports), palette[trial.defense]
        for metric, dash in ((goal.metric, "solid"), (CLEAN, "dot")):
            _curve(figure, trial, epochs, metric, colour, dash, row=1)
        for metric, dash in (("epsilon", "solid"), ("alpha", "dash")):
            if any(trial.reports[epoch].get("epsilon") for epoch in epochs):  # else nothing was attacked in training
                _curve(figure, trial, epochs, metric, colour, dash, row=2)
        if trial.best:
            best = trial.best["epoch"]
            where = {"x": [best], "y": [trial.reports[best].get(goal.metric)]}
            marker = {"color": colour, "symbol": "star", "size": 13}
            figure.add_scatter(
                **where, mode="markers", marker=marker, showlegend=False, name="best epoch", row=1, col=1
            )
    figure.update_layout(_layout(height=560))
    figure.update_xaxes(gridcolor="rgba(128,128,128,.2)")
    figure.update_yaxes(gridcolor="rgba(128,128,128,.2)")
    figure.update_xaxes(title="epoch", row=2)
    figure.update_yaxes(title="accuracy (dots: clean)", row=1)
    figure.update_yaxes(title="epsilon, alpha (dashes)", row=2)
    return figure


def best_so_far(study: Study, ledger: Ledger) -> go.Figure | None:
    """What each defense had reached after so many gradient evaluations of its own trials, stopped ones included."""
    goal = study.objective[0]
    figure = _figure(xaxis_title="gradient evaluations of the defense's trials", yaxis_title="best so far")
    for defense, colour in colours(ledger).items():
        spent, best, xs, ys = 0.0, None, [0.0], [None]
        for trial in (trial for trial in ledger if trial.defense == defense):
            spent += trial.gradient_evaluations
            if not trial.is_suspect and trial.rank(goal)[0] == 1:
                value = _value(trial, goal.metric)
                best = value if best is None else _better(goal, best, value)
            xs.append(spent)
            ys.append(best)  # type: ignore[arg-type]  # None until something counts
        if best is not None:
            figure.add_scatter(x=xs, y=ys, name=defense, line={"color": colour, "shape": "hv"}, mode="lines")
    return figure if figure.data else None


def confirmed(found: Sequence[Confirmed]) -> go.Figure | None:
    """What the search said of each candidate, and what fresh seeds and unseen images say, with 95 % intervals."""
    if not found:
        return None
    names = [f"trial {one.number} {one.defense}" for one in found]
    figure = _figure(xaxis_title="accuracy in the worst case, test split")
    figure.add_scatter(
        x=[one.worst_case.mean for one in found],
        y=names,
        mode="markers",
        name="confirmed, 95 % interval",
        marker={"size": 11, "color": PALETTE[0]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [one.worst_case.high - one.worst_case.mean for one in found],
            "arrayminus": [one.worst_case.mean - one.worst_case.low for one in found],
        },
    )
    figure.add_scatter(
        x=[one.searched for one in found],
        y=names,
        mode="markers",
        name="the search's value",
        marker={"size": 11, "color": PALETTE[1], "symbol": "diamond-open"},
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def parallel(study: Study, ledger: Ledger) -> go.Figure | None:
    """The parameters that every trial has, against the objective; a branch's own are in the slices."""
    trials = [trial for trial in ledger if trial.best]
    if len(trials) < 2:  # one line shows no relation
        return None
    shared = [name for name in trials[0].params if all(name in trial.params for trial in trials)]
    dimensions = [_dimension(name, [trial.params[name] for trial in trials]) for name in shared]
    values = [_value(trial, study.objective[0].metric) for trial in trials]
    dimensions.append({"label": "objective", "values": values})
    figure = _figure()
    line = {"color": values, "colorscale": "Viridis", "showscale": True}
    figure.add_trace(go.Parcoords(dimensions=dimensions, line=line, labelfont={"color": GREY}))
    return figure


def importance(shares: Mapping[str, Mapping[str, float]]) -> go.Figure | None:
    """Bars of each parameter's share, a group for each defense that had enough completed trials."""
    if not shares:
        return None
    figure = _figure(xaxis_title="share of the spread that it explains")
    for place, (defense, found) in enumerate(shares.items()):
        names = [f"{defense}: {name.removeprefix(f'defense.{defense}.')}" for name in found]
        colour = PALETTE[place % len(PALETTE)]
        figure.add_bar(x=list(found.values()), y=names, orientation="h", name=defense, marker_color=colour)
    figure.update_yaxes(autorange="reversed")
    return figure


def _dimension(name: str, values: list[Any]) -> dict[str, Any]:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"label": name, "values": values}
    texts = sorted({str(value) for value in values})
    places = list(range(len(texts)))
    coded = [texts.index(str(value)) for value in values]
    return {"label": name, "values": coded, "tickvals": places, "ticktext": texts}


def _curve(
    figure: go.Figure, trial: TrialRecord, epochs: list[int], metric: str, colour: str, dash: str, row: int
) -> None:
    known = [epoch for epoch in epochs if metric in trial.reports[epoch]]
    figure.add_scatter(
        x=known,
        y=[trial.reports[epoch][metric] for epoch in known],
        mode="lines",
        name=f"{trial.defense} ({trial.number})",
        legendgroup=trial.defense,
        showlegend=row == 1 and dash == "solid",
        line={"color": colour, "dash": dash},
        hovertemplate=f"{metric} %{{y:.4f}}, epoch %{{x}}<extra>trial {trial.number}</extra>",
        row=row,
        col=1,
    )


def _kind(trial: TrialRecord) -> str:
    if trial.is_suspect:
        return "suspect"
    return "completed" if trial.end == "completed" else "other"


def _value(trial: TrialRecord, metric: str) -> float:
    return float(trial.best["metrics"][metric]) if trial.best else 0.0


def _better(goal: Goal, one: float, other: float) -> float:
    return max(one, other) if goal.direction == "maximize" else min(one, other)


def _figure(**axes: str) -> go.Figure:
    figure = go.Figure(layout=_layout())
    figure.update_xaxes(gridcolor="rgba(128,128,128,.2)", title=axes.get("xaxis_title"))
    figure.update_yaxes(gridcolor="rgba(128,128,128,.2)", title=axes.get("yaxis_title"))
    return figure


def _layout(height: int = 420) -> dict[str, Any]:
    return {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": GREY, "family": "system-ui, sans-serif"},
        "margin": {"l": 60, "r": 20, "t": 40, "b": 50},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY},
        "legend": {"orientation": "h", "y": -0.2},
    }
