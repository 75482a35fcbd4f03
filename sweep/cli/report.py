"""The command that writes a study's report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, Studies
from sweep.cli.tracking import TrackingUri
from sweep.errors import counted

if TYPE_CHECKING:
    from sweep.orchestration.folder import StudyFolder


def report(
    study: Annotated[str, typer.Argument(help="A study's name, folder or URI.")],
    studies: Studies = DEFAULT_STUDIES,
    measure: Annotated[
        bool,
        typer.Option(
            help="Attack the networks that were kept, on validation images, for curves, diagrams and examples."
        ),
    ] = True,
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a study's report, one HTML file that needs no network: what won, whether to believe it, what it cost.

    Its figures lie beside it as PNG, and both in MLflow, with the study's own run. What it measures of the networks is
    kept: the next report of the same study takes seconds.

    Example: sweep report digits
    """
    from sweep.analysis.report import page, pictures
    from sweep.errors import StudyError
    from sweep.orchestration.folder import StudyFolder

    folder = StudyFolder.find(studies, study)
    written = page.write(folder, measure=measure, say=_say)
    typer.echo(written.path)
    files = [written.path]
    try:
        files += pictures.write(folder.path, written.figures, written.exhibits)
        _say(f"{counted(len(files) - 1, 'figure')} as PNG in {files[-1].parent}")
    except StudyError as error:
        _say(str(error))
    try:
        _attach(folder, tracking_uri, files)
    except StudyError as error:
        _say(str(error))


def _attach(folder: StudyFolder, tracking_uri: str | None, files: list[Path]) -> None:
    """Put the report where the study is shown; nowhere where nothing of it was sent yet."""
    from sweep.tracking.attach import attach
    from sweep.tracking.home import uri_of
    from sweep.tracking.mirror import mirrored

    if tracking_uri or mirrored(folder.path)[0]:
        attach(folder.path, uri_of(folder.path, tracking_uri), folder.study().experiment, files, "report")
        _say("attached to the study's run in MLflow, under report/")


def _say(text: str) -> None:
    typer.echo(text, err=True)
