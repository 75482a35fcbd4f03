"""Figures of accuracies: of every trial, and of what was confirmed. A figure without data is None."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

import plotly.graph_objects as go

from sweep.analysis.confirm import Confirmed, spread
from sweep.analysis.report import theme
from sweep.analysis.results import best_by_defense, pareto
from sweep.analysis.statistics import Interval
from sweep.objective import Maximize
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

CLEAN = "validation/clean_accuracy"
_ROOM, _LEAST_ROOM = 0.25, 0.004  # around the best, as a share of their range and as an accuracy
_CROWD = 20  # trials below which none hides another one
_CORNER = 0.2  # of the figure's area, below which the best are drawn again
_SHAPES = {"circle": "fresh seeds, test split, worst case of all attacks", "x": "suspect"}


def clean_against_adversarial(study: Study, ledger: Ledger, found: Sequence[Confirmed]) -> list[go.Figure]:
    """Every trial that reported, at the epoch that counts; the front of what no believed trial beats in both; and what
    was confirmed, on the test split. Where that leaves the better half in a corner, a second panel shows it alone."""
    goal = study.objective[0]
    shown = [trial for trial in ledger if trial.best and CLEAN in trial.best["metrics"]]
    if not shown:
        return []
    figure = theme.empty("clean accuracy", goal.metric.removeprefix("validation/"), height=520)
    for defense, colour in theme.colours(ledger).items():
        _points(figure, [trial for trial in shown if trial.defense == defense], goal.metric, colour)
    theme.symbols_told(figure, {kind(trial) for trial in shown})
    front = sorted(pareto(ledger, (goal, Maximize(CLEAN))), key=lambda trial: value(trial, CLEAN))
    figure.add_scatter(
        x=[value(trial, CLEAN) for trial in front],
        y=[value(trial, goal.metric) for trial in front],
        mode="lines",
        name="front",
        line={"color": theme.GREY, "dash": "dot", "shape": "vh"},
        hoverinfo="skip",
    )
    _confirmed_points(figure, found, theme.colours(ledger))
    ranked = ledger.ranked(goal)
    best = _points_of([*ranked[: len(ranked) // 2], *best_by_defense(ledger, goal)], goal.metric)
    best += [(end(one.clean), end(one.worst_case)) for one in found for end in (attrgetter("low"), attrgetter("high"))]
    box = _box(best)
    whole = _box(_points_of(shown, goal.metric))
    if len(shown) < _CROWD or not box or not whole or not _is_corner(box, whole):
        return [figure]
    closer = copy.deepcopy(figure)
    closer.update_xaxes(range=box[0], title="clean accuracy: the best, closer")
    closer.update_yaxes(range=box[1])
    return [figure, closer]


def confirmed(study: Study, ledger: Ledger, found: Sequence[Confirmed]) -> go.Figure | None:
    """What the search said of each candidate, and what fresh seeds and unseen images say, with 95 % intervals."""
    if not found:
        return None
    palette = theme.colours(ledger)
    names = [f"{one.defense}<br>trial {one.number}{', baseline' if one.is_baseline else ''}" for one in found]
    figure = theme.empty("adversarial accuracy", height=110 + 48 * len(found))
    for one, name in zip(found, names, strict=True):
        figure.add_scatter(
            x=[one.worst_case.mean],
            y=[name],
            mode="markers",
            showlegend=False,
            marker={"size": 12, "color": palette[one.defense], "symbol": _symbol(one)},
            error_x=_arms(one.worst_case),
            hovertemplate=f"%{{x:.3f}} [{one.worst_case.low:.3f}, {one.worst_case.high:.3f}]<extra>%{{y}}</extra>",
        )
    for symbol, meaning in _SHAPES.items():
        if symbol in map(_symbol, found):
            figure.add_scatter(
                x=[None], y=[names[0]], mode="markers", name=meaning, marker=_grey(symbol) | {"size": 12}
            )
    figure.add_scatter(
        x=[one.searched for one in found],
        y=names,
        mode="markers",
        name=f"the search: {study.objective[0].metric.removesuffix('/adversarial_accuracy')}, one seed",
        marker=_grey("diamond-open") | {"size": 11, "line": {"width": 2}},
        hovertemplate="%{x:.3f}<extra>the search's value</extra>",
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def kind(trial: TrialRecord) -> str:
    """How a trial is shown: suspect, completed, or whatever else as stopped."""
    if trial.is_suspect:
        return "suspect"
    return "completed" if trial.end == "completed" else "stopped"


def value(trial: TrialRecord, metric: str) -> float:
    """A metric of the epoch that counts; not a number where it was not reported."""
    return float(trial.best["metrics"].get(metric, "nan")) if trial.best else float("nan")


def _points_of(trials: Iterable[TrialRecord], metric: str) -> list[tuple[float, float]]:
    return [(value(trial, CLEAN), value(trial, metric)) for trial in trials]


def _box(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The ranges of both axes that hold the points, with room around them; none without points."""
    known = [point for point in points if math.isfinite(sum(point))]
    ranges = [(min(values), max(values)) for values in zip(*known, strict=True)]
    return [(low - room, high + room) for low, high in ranges for room in [max(_ROOM * (high - low), _LEAST_ROOM)]]


def _is_corner(box: Sequence[tuple[float, float]], whole: Sequence[tuple[float, float]]) -> bool:
    shares = [(high - low) / (top - bottom) for (low, high), (bottom, top) in zip(box, whole, strict=True)]
    return math.prod(shares) < _CORNER


def _points(figure: go.Figure, trials: Sequence[TrialRecord], metric: str, colour: str) -> None:
    if not trials:
        return
    figure.add_scatter(
        x=[value(trial, CLEAN) for trial in trials],
        y=[value(trial, metric) for trial in trials],
        mode="markers",
        name=trials[0].defense,
        marker={
            "color": colour,
            "symbol": [theme.SYMBOLS[kind(trial)] for trial in trials],
            "size": 9,
            "line": {"width": 1.5, "color": colour},
            "opacity": 0.85,
        },
        text=[f"trial {trial.number}, {kind(trial)}" for trial in trials],
        hovertemplate="%{text}<br>clean %{x:.4f}<br>adversarial %{y:.4f}<extra>%{fullData.name}</extra>",
    )


def _confirmed_points(figure: go.Figure, found: Sequence[Confirmed], palette: Mapping[str, str]) -> None:
    for place, one in enumerate(found):
        figure.add_scatter(
            x=[one.clean.mean],
            y=[one.worst_case.mean],
            mode="markers",
            name="judged again: test split, every attack",
            legendgroup="judged again",
            showlegend=place == 0,
            marker={
                "symbol": "x" if one.suspect else "diamond",
                "size": 13,
                "color": palette[one.defense],
                "line": {"width": 2, "color": theme.GREY},
            },
            error_x=_arms(one.clean),
            error_y=_arms(one.worst_case),
            hovertemplate=f"trial {one.number}, judged again<br>clean {spread(one.clean)}<br>worst case "
            f"{spread(one.worst_case)}"
            f"<extra>{one.defense}</extra>",
        )


def _symbol(one: Confirmed) -> str:
    return theme.SYMBOLS["suspect" if one.suspect else "completed"]


def _grey(symbol: str) -> dict[str, object]:
    """Of a mark that stands for every defense's."""
    return {"color": theme.GREY, "symbol": symbol}


def _arms(middle: Interval) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [middle.high - middle.mean],
        "arrayminus": [middle.mean - middle.low],
        "thickness": 1.5,
    }
