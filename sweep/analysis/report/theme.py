"""How every figure of a report looks.

Colours are a defense's everywhere (Okabe and Ito's palette, which the colour-blind can tell apart). Backgrounds are
clear, text and grid of a grey that reads on white and on black; the page gives the text its own colour.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from sweep.tracking.ledger import Ledger

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#999933")
GREY = "#808080"
GRID = "rgba(128,128,128,.22)"
SYMBOLS = {"completed": "circle", "stopped": "circle-open", "suspect": "x"}
CONFIG = {"responsive": True, "displayModeBar": False}


def colours(ledger: Ledger) -> dict[str, str]:
    """A colour for each defense."""
    names = sorted({trial.defense for trial in ledger})
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}


def faint(colour: str, opacity: float = 0.12) -> str:
    """A colour of the palette, for an area behind its line."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def ink_on(fill: str) -> str:
    """Black or white, whichever reads better on a colour, given as rgb(r, g, b); no contrast is below 4.5 (WCAG 2)."""
    return "#000000" if luminance(fill) > 0.179 else "#ffffff"


def luminance(colour: str) -> float:
    """Relative, in [0, 1], as WCAG 2 has it."""
    shares = [float(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def empty(x: str | None = None, y: str | None = None, height: int = 440) -> go.Figure:
    """A figure without traces, its axes named."""
    figure = go.Figure(layout=layout(height))
    dress(figure)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure


def dress(figure: go.Figure) -> None:
    """Grid and axes of every panel."""
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(gridcolor=GRID, zeroline=False, automargin=True, title_font_size=13, title_standoff=8)


def layout(height: int) -> dict[str, Any]:
    """Of the whole figure; the legend lies above it, where no axis is."""
    return {
        "template": "none",  # plotly's own would be written into every figure
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": GREY, "family": "system-ui, sans-serif", "size": 13},
        "margin": {"l": 10, "r": 12, "t": 12, "b": 10},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": "system-ui, sans-serif"}},
    }


def symbols_told(figure: go.Figure, kinds: set[str]) -> None:
    """Grey entries of the legend that say what the points' shapes mean, where there is more than one."""
    for kind, symbol in SYMBOLS.items():
        if kind in kinds and len(kinds) > 1:
            figure.add_scatter(
                x=[None], y=[None], mode="markers", name=kind, marker={"color": GREY, "symbol": symbol, "size": 9}
            )
