"""Commands that search: run and resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, Studies
from sweep.tracking.mlflow import redacted

if TYPE_CHECKING:
    from sweep.orchestration.folder import StudyFolder
    from sweep.orchestration.search import Search

Address = Annotated[str | None, typer.Option(help="A Ray cluster to join; none: Ray starts here.")]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow server or store; none: SQLite in the study folder.")
]
InProcess = Annotated[bool, typer.Option("--in-process", help="Without Ray: one trial after another, in this process.")]
DRAIN_SECONDS = 30.0  # that the end of a sweep waits for MLflow


def run(
    file: Annotated[Path, typer.Argument(help="A search-space file, such as search_spaces/digits.py.")],
    studies: Studies = DEFAULT_STUDIES,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    in_process: InProcess = False,
) -> None:
    """Search a space: Ray runs the trials, Optuna proposes them, MLflow shows them.

    Ctrl-C lets running trials save and ends; `sweep resume` goes on.

    Example: sweep run search_spaces/digits.py
    """
    from sweep.cli.files import load_study
    from sweep.orchestration.folder import StudyFolder

    study = load_study(file)
    if address is None:  # where trials run here, missing data are better said now than by every trial
        study.trial_config(next(study.space.corners()), 0).dataset.load()
    folder = StudyFolder.create(studies, study)
    _search(folder, address, tracking_uri, in_process)


def resume(
    study: Annotated[str, typer.Argument(help="A study's name or folder.")],
    studies: Studies = DEFAULT_STUDIES,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    in_process: InProcess = False,
) -> None:
    """Go on with a study after anything: finished trials stay, those in flight go on from their checkpoints.

    Example: sweep resume digits
    """
    from sweep.orchestration.folder import StudyFolder

    _search(StudyFolder.find(studies, study), address, tracking_uri, in_process)


def _search(folder: StudyFolder, address: str | None, tracking_uri: str | None, in_process: bool) -> None:
    from sweep.analysis import results
    from sweep.cli import tables
    from sweep.cli.progress import Progress
    from sweep.orchestration import search as searching
    from sweep.tracking.mlflow import Mirror, local_uri

    study = folder.study()
    uri = tracking_uri or local_uri(folder.path)
    mirror = Mirror(folder.path, uri, study.name)
    with Progress(study) as progress, searching.opened(folder, progress.hear, progress.say) as search:
        progress.follow(search)
        mirror.start()
        try:
            _run_trials(search, address, in_process)
        finally:
            written = results.write(search.ledger, folder.path)
    unsent = mirror.stop(DRAIN_SECONDS)
    options = _options(folder.path.parent, address, tracking_uri, in_process)
    tables.show_results(study, search.ledger)
    look = redacted(tracking_uri) if tracking_uri else ""
    tables.show_where_to_look(folder.path.name, options, look, search.interrupted, written)
    if unsent:
        tables.show_unsent(folder.path.name, options, unsent, mirror.last_error)
    if search.interrupted:
        raise typer.Exit(130)


def _options(studies: Path, address: str | None, tracking_uri: str | None, in_process: bool) -> dict[str, str]:
    """The options that another command needs to go on with this study; credentials are for the user to put back."""
    given = {
        "studies": str(studies) if studies != DEFAULT_STUDIES else "",
        "address": address or "",
        "tracking-uri": redacted(tracking_uri or ""),
    }
    return {name: value for name, value in given.items() if value} | ({"in-process": ""} if in_process else {})


def _run_trials(search: Search, address: str | None, in_process: bool) -> None:
    if in_process:
        from sweep.orchestration import in_process as runner

        runner.run(search)
    else:
        from sweep.orchestration import ray_tune

        ray_tune.run(search, address)
