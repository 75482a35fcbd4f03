"""The report's figures as PNG, drawn by kaleido in the Chromium or Chrome that is installed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import kaleido
import plotly.graph_objects as go
from choreographer.errors import BrowserClosedError, BrowserDepsError, BrowserFailedError, ChromeNotFoundError

from sweep.analysis.probes import FOLDER
from sweep.analysis.report.examples import Exhibit
from sweep.analysis.report.gallery import Drawn
from sweep.analysis.report.sheet import contact_sheet
from sweep.errors import StudyError

_FAILURES = (ChromeNotFoundError, BrowserFailedError, BrowserClosedError, BrowserDepsError, TimeoutError)
_WIDTH = 1000  # pixels
_INK, _PAPER = "#1f2328", "#ffffff"  # those of the page in the light


def write(folder: Path, figures: Mapping[str, Drawn], exhibits: Sequence[Exhibit]) -> list[Path]:
    """A PNG of every panel, and one of the adversarial examples, in the study folder's `report/`.

    Raises StudyError, which says what to install, where no browser is found or none starts.
    """
    panels = {
        f"{name}-{place}" if len(drawn.panels) > 1 else name: (drawn.title, panel)
        for name, drawn in figures.items()
        for place, panel in enumerate(drawn.panels, start=1)
    }
    there = folder / FOLDER
    there.mkdir(exist_ok=True)
    tasks = [
        {"fig": _on_paper(title, panel), "path": there / f"{name}.png", "opts": {"width": _WIDTH, "scale": 1.5}}
        for name, (title, panel) in panels.items()
    ]
    written = [there / f"{name}.png" for name in panels]
    if exhibits:
        written.append(there / "examples.png")
        contact_sheet(exhibits).save(written[-1], optimize=True)
    try:
        kaleido.write_fig_from_object_sync(tasks, kopts={"mathjax": False}, cancel_on_error=True)
    except _FAILURES as error:
        reason = str(error).split(". ")[0].strip() or type(error).__name__
        raise StudyError(
            f"no pictures: {reason}. They are drawn by Chromium or Chrome: install Debian's `chromium`, or run "
            "`kaleido_get_chrome`; BROWSER_PATH names another one"
        ) from None
    for old in set(there.glob("*.png")) - set(written):
        old.unlink()
    return written


def _on_paper(title: str, panel: go.Figure) -> go.Figure:
    figure = copy.deepcopy(panel)
    figure.update_layout(title=title, title_font_size=18, paper_bgcolor=_PAPER, plot_bgcolor=_PAPER, font_color=_INK)
    figure.update_layout(title_x=0.01, title_y=0.985, title_yanchor="top")
    figure.update_layout(margin_t=100, height=panel.layout.height + 70)  # the title above a legend of two lines
    return figure
