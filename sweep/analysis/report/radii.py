"""Figures of other radii than the judged one: security curves, and the matrix of radii trained and attacked with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from plotly.colors import sample_colorscale

from sweep.analysis.probes import Probe
from sweep.analysis.report import theme
from sweep.analysis.statistics import binomial
from sweep.tracking.ledger import Ledger

_SCALE = "Viridis"
_DASHES = ("solid", "dash", "dot")  # of configurations of one defense, which have one colour


def security_curves(ledger: Ledger, contenders: Mapping[int, Sequence[Probe]], judged: float) -> go.Figure | None:
    """Accuracy against the attacker's radius, for each configuration the mean over its networks; bands: 95 % intervals
    of the images."""
    if not contenders:
        return None
    palette, drawn = theme.colours(ledger), Counter[str]()
    figure = theme.empty("radius of the attacker's ball, in [0, 1] pixels", "accuracy", height=480)
    for number, probes in contenders.items():
        defense, radii = probes[0].trained.defense, probes[0].radii
        means = torch.stack([probe.accuracies() for probe in probes]).mean(0).tolist()
        bounds = [binomial(mean, probes[0].withstood.shape[1]) for mean in means]
        figure.add_scatter(
            x=[*radii, *reversed(radii)],
            y=[*(high for _, high in bounds), *(low for low, _ in reversed(bounds))],
            fill="toself",
            fillcolor=theme.faint(palette[defense]),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=str(number),
        )
        figure.add_scatter(
            x=radii,
            y=means,
            mode="lines+markers",
            name=probes[0].trained.label,
            legendgroup=str(number),
            line={"color": palette[defense], "dash": _DASHES[drawn[defense] % len(_DASHES)]},
            customdata=bounds,
            hovertemplate="radius %{x:.4g}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        )
        drawn[defense] += 1
    figure.add_vline(x=judged, line={"color": theme.GREY, "dash": "dot"}, annotation_text="judged here")
    figure.update_yaxes(range=[-0.02, 1.02])
    return figure


def radius_matrix(rows: Sequence[Probe], judged: float) -> go.Figure | None:
    """Accuracy by the radius that a trial trained with, and the one that it is attacked with."""
    if not rows:
        return None
    names = [_trained_with(probe) for probe in rows]
    columns = [f"<b>{radius:.3g}<br>judged</b>" if radius == judged else f"{radius:.3g}" for radius in rows[0].radii]
    figure = theme.empty("radius of the attacker's ball", height=120 + 34 * len(rows))
    cells = [probe.accuracies().tolist() for probe in rows]
    shares = [share for row in cells for share in row]
    figure.add_heatmap(
        z=cells,
        x=columns,
        y=names,
        zmin=0,
        zmax=1,
        colorscale=_SCALE,
        showscale=False,
        xgap=1,
        ygap=1,
        hovertemplate="%{y}<br>attacked within %{x}: %{z:.3f}<extra></extra>",
    )
    figure.add_scatter(  # the heatmap's own text is of one colour, or of a grey too faint on green
        x=columns * len(rows),
        y=[name for name in names for _ in columns],
        text=[f"{share:.2f}" for share in shares],
        mode="text",
        textfont={"color": [theme.ink_on(fill) for fill in sample_colorscale(_SCALE, shares)]},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(type="category", showgrid=False)
    return figure


def _trained_with(probe: Probe) -> str:
    radius = probe.trained.radius
    trained = "not attacked" if radius is None else f"{radius:.3g}"
    return f"{probe.trained.defense}<br>{trained}, trial {probe.trained.trial}"
