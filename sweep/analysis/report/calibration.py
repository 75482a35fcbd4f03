"""Reliability diagrams: how often networks are right against how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch

from sweep.analysis.probes import Probe
from sweep.analysis.report import theme
from sweep.tracking.ledger import Ledger

BINS = 10  # fewer than the calibration error's 15: each is to hold some images
_FEWEST = 3  # images below which a bin's share says nothing


def reliability(ledger: Ledger, contenders: Mapping[int, Sequence[Probe]]) -> list[go.Figure]:
    """How often networks are right against how sure they are: on clean images, and under the attack."""
    if not contenders:
        return []
    attack = next(iter(contenders.values()))[0].attack
    return [
        _reliability(ledger, contenders, "clean", "probability it gives its answer: clean images"),
        _reliability(ledger, contenders, "attacked", f"the same under {attack}"),
    ]


def _reliability(ledger: Ledger, contenders: Mapping[int, Sequence[Probe]], under: str, title: str) -> go.Figure:
    palette, drawn = theme.colours(ledger), set()
    figure = theme.empty(title, "share that is right", height=420)
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": theme.GREY, "dash": "dot"},
        name="as sure as right",
        hoverinfo="skip",
    )
    for probes in contenders.values():
        defense = probes[0].trained.defense
        if defense in drawn:
            continue  # one of each: the next of the same colour says little more
        drawn.add(defense)
        sure, right, counts = _binned(torch.cat([getattr(probe, under) for probe in probes], 1))
        figure.add_scatter(
            x=sure,
            y=right,
            mode="lines+markers",
            name=probes[0].trained.label,
            line={"color": palette[defense]},
            marker={"size": [5 + 12 * (count / sum(counts)) ** 0.5 for count in counts]},
            customdata=counts,
            hovertemplate="sure %{x:.2f}, right %{y:.2f}, %{customdata} images",
        )
    figure.update_xaxes(range=[0, 1.03])
    figure.update_yaxes(range=[-0.03, 1.03])
    return figure


def _binned(confidence: torch.Tensor) -> tuple[list[float], list[float], list[int]]:
    """Of each bin with enough in it: mean probability, share of right answers, number of images."""
    sure, right = confidence.double()
    bins = (sure * BINS).long().clamp(0, BINS - 1)
    rows = [bins == place for place in range(BINS)]
    enough = [row for row in rows if row.sum() >= _FEWEST]
    return (
        [sure[row].mean().item() for row in enough],
        [right[row].mean().item() for row in enough],
        [int(row.sum()) for row in enough],
    )
