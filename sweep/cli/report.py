"""The command that writes a study's report."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, Studies


def report(
    study: Annotated[str, typer.Argument(help="A study's name or folder.")],
    studies: Studies = DEFAULT_STUDIES,
    measure: Annotated[
        bool,
        typer.Option(
            help="Attack the networks that were kept, on validation images, for curves, diagrams and examples."
        ),
    ] = True,
) -> None:
    """Write a study's report, one HTML file that needs no network: what won, whether to believe it, what it cost.

    What it measures of the networks is kept: the next report of the same study takes seconds.

    Example: sweep report digits
    """
    from sweep.analysis.report import page
    from sweep.orchestration.folder import StudyFolder

    written = page.write(StudyFolder.find(studies, study), measure=measure, say=_say)
    typer.echo(written.path)


def _say(text: str) -> None:
    typer.echo(text, err=True)
