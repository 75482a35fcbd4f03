"""Figures of what happened when: learning curves by epoch, and the best so far by cost. None without data."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweep.analysis.comparison import course
from sweep.analysis.report import theme
from sweep.analysis.report.accuracy import CLEAN, value
from sweep.analysis.results import best_by_defense
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

_TICKS = 12  # epochs up to which each has its own
_MARKED = 60  # trials of a defense up to which each has a mark on its curve
_CURVES = 6  # trials whose learning curves are drawn; the rest are in epochs.parquet


def learning_curves(study: Study, ledger: Ledger) -> go.Figure | None:
    """Each defense's best trial: its accuracies by epoch, and below them its radius and its clean loss's weight."""
    metric, palette = study.objective[0].metric, theme.colours(ledger)
    shown = best_by_defense(ledger, study.objective[0])[:_CURVES]
    if not shown:
        return None
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.04)
    for trial in shown:
        colour = palette[trial.defense]
        _curve(figure, trial, metric, colour, "solid", row=1)
        _curve(figure, trial, CLEAN, colour, "dot", row=1)
        if any(report.get("epsilon") for report in trial.reports.values()):  # else nothing was attacked in training
            _curve(figure, trial, "epsilon", colour, "solid", row=2)
            _curve(figure, trial, "alpha", colour, "dash", row=2)
        _marks(figure, trial, metric, colour)
    figure.update_layout(theme.layout(height=600))
    theme.dress(figure)
    figure.update_xaxes(title="epoch", row=2)
    if max(max(trial.reports) for trial in shown) <= _TICKS:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(title="accuracy (dots: clean)", row=1)
    figure.update_yaxes(title="epsilon (dashes: alpha)", row=2)
    return figure


def best_so_far(study: Study, ledger: Ledger) -> go.Figure | None:
    """What each defense had reached after so many gradient evaluations of its own trials, stopped ones included."""
    goal = study.objective[0]
    figure = theme.empty("gradient evaluations of the defense's trials", "best so far")
    for defense, colour in theme.colours(ledger).items():
        told = [(spent, best) for spent, best in course(goal, ledger, defense) if best]
        if told:
            figure.add_scatter(
                x=[spent for spent, _ in told],
                y=[value(best, goal.metric) for _, best in told],
                name=defense,
                line={"color": colour, "shape": "hv", "width": 2.5},
                marker={"size": 7},
                mode="lines+markers" if len(told) <= _MARKED else "lines",
                text=[f"trial {best.number}" for _, best in told],
                hovertemplate="%{text}: %{y:.4f} after %{x:,.0f}",
            )
    return figure if figure.data else None


def _curve(figure: go.Figure, trial: TrialRecord, metric: str, colour: str, dash: str, row: int) -> None:
    known = [epoch for epoch in sorted(trial.reports) if metric in trial.reports[epoch]]
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


def _marks(figure: go.Figure, trial: TrialRecord, metric: str, colour: str) -> None:
    """A star at the best epoch, a circle at the last that was judged."""
    judged = [epoch for epoch in sorted(trial.reports) if metric in trial.reports[epoch]]
    best = trial.best["epoch"] if trial.best else None
    for epoch, symbol, what in ((best, "star", "best epoch"), (judged[-1], "circle-open", "last epoch")):
        if epoch is not None:
            figure.add_scatter(
                x=[epoch],
                y=[trial.reports[epoch][metric]],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 13 if symbol == "star" else 9},
                legendgroup=trial.defense,
                showlegend=False,
                name=what,
                hovertemplate=f"{what} %{{x}}: %{{y:.4f}}<extra>trial {trial.number}</extra>",
                row=1,
                col=1,
            )
