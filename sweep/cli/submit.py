"""The command that sends a search to a cluster."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from sweep.cli.run import StorageUri

_TRACKING = "MLflow as the head reaches it; none: MLFLOW_TRACKING_URI there."


def submit(
    study: Annotated[
        str, typer.Argument(help="A search-space file to begin, or the name or URI of a study to go on with.")
    ],
    address: Annotated[str, typer.Option(help="Ray's dashboard, such as http://head:8265.")],
    studies: Annotated[
        str | None, typer.Option("--studies", help="Folder of the studies as every machine of the cluster sees it.")
    ] = None,
    storage: StorageUri = None,
    tracking_uri: Annotated[str | None, typer.Option("--tracking-uri", metavar="URI", help=_TRACKING)] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show what it prints until it ends.")] = False,
) -> None:
    """Send a search to a Ray cluster, where it runs on whatever becomes of this machine; needs Ray's dashboard there.

    The code is sent as well. With --follow, exit code 1 where the search did not end well; Ctrl-C ends the following,
    not the search.

    Example: sweep submit search_spaces/digits.py --address http://head:8265 --storage s3://bucket/studies
    """
    from sweep.cli.files import load_study
    from sweep.orchestration.ray_jobs import Jobs
    from sweep.orchestration.storage import below, is_uri

    file = Path(study) if study.endswith(".py") else None
    _refuse(study, studies, storage, tracking_uri)
    name = load_study(file).name if file else study.partition("?")[0].rpartition("/")[2]
    there = below(storage, name) if storage else study if is_uri(study) else name  # what finds it from now on
    where = ["--studies", studies] if studies else []
    options = ["--address", "auto", *where, *(["--tracking-uri", tracking_uri] if tracking_uri else [])]
    begin = ["run", file.name, *(["--storage", storage] if storage else [])] if file else ["resume", there]
    jobs = Jobs(address)
    job = jobs.send(name, [*begin, *options], file)
    typer.echo(f"sent as {job}")
    typer.echo(f"follow it    ray job logs --address {address} --follow {job}")
    typer.echo(f"stop it      ray job stop --address {address} {job}")
    typer.echo(f"go on        {shlex.join(['sweep', 'submit', there, '--address', address, *where])}")
    if not studies:
        typer.echo(f"see it       {shlex.join(['sweep', 'status', there])}")
    if not follow:
        return
    try:
        ended_well = jobs.follow(job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"{job} goes on")
        raise typer.Exit(130) from None
    if not ended_well:
        raise typer.Exit(1)


def _refuse(study: str, studies: str | None, storage: str | None, tracking_uri: str | None) -> None:
    """What would fail there, or be shown there to others."""
    from sweep.errors import StudyError
    from sweep.orchestration.storage import is_uri, refuse_unusable
    from sweep.tracking.address import checked, redacted

    if is_uri(study) + bool(studies) + bool(storage) != 1:
        raise StudyError(
            "say once where the cluster keeps the study: --studies (a folder that all of its machines mount), "
            "--storage (a store, as s3://bucket/path), or, to go on with one, its URI in place of its name"
        )
    if studies and not PurePosixPath(studies).is_absolute():
        raise StudyError(f"--studies {studies}: on a cluster a search stands in another folder; give the whole path")
    for uri in (storage, study if is_uri(study) else None):
        if uri:
            refuse_unusable(uri)
    if tracking_uri and redacted(checked(tracking_uri)) != tracking_uri:
        raise StudyError(
            f"--tracking-uri {redacted(tracking_uri)}: Ray shows a job's command to everyone; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the head instead"
        )
