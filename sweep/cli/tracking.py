"""Commands about MLflow: send it what it lacks, open its page."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, AsJson, Studies
from sweep.cli.numbers import number
from sweep.errors import counted

if TYPE_CHECKING:
    from sweep.tracking.check import Check
    from sweep.tracking.mirror import JournalMirror

TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        metavar="URI",
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow server or database; none: the study's last, at first SQLite in its folder. A password is better "
        "kept in the variable, since others see a command line.",
    ),
]


def sync(
    study: Annotated[str, typer.Argument(help="A study's name, folder or URI.")],
    studies: Studies = DEFAULT_STUDIES,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Send MLflow what it lacks of a study, and count what it holds against the journal.

    May be repeated at any time, also to another MLflow: nothing is doubled. Exit code 1: something is missing or twice.

    Example: sweep sync digits --tracking-uri http://mlflow.example.org:5000
    """
    from sweep.errors import StudyError
    from sweep.orchestration.folder import StudyFolder
    from sweep.tracking.address import redacted
    from sweep.tracking.check import check
    from sweep.tracking.home import uri_of
    from sweep.tracking.mlflow import Mirror
    from sweep.tracking.probe import probe

    folder = StudyFolder.find(studies, study)
    name, uri = folder.study().experiment, uri_of(folder.path, tracking_uri)
    if away := probe(uri, name):
        raise StudyError(f"{away}; nothing is lost: `sweep sync` sends everything when MLflow is back")
    if not folder.journal.exists():
        raise StudyError(f"{folder.path} has no journal yet: there is nothing to send")
    mirror = Mirror(folder.path, uri, name, folder.searched())
    confirms = folder.searched() is not None
    sent, found = mirror.sync(), check(folder.path, uri, name, confirms=confirms)
    if not found.is_faithful:
        typer.echo(f"{_wrong(found)}; sending everything again", err=as_json)
        sent, found = sent + mirror.sync(again=True), check(folder.path, uri, name, confirms=confirms)
    if as_json:
        whole = {"tracking_uri": redacted(uri), "experiment": name, "sent": sent, "refused": mirror.refused}
        typer.echo(json.dumps(whole | {"faithful": found.is_faithful} | asdict(found), indent=2))
    else:
        _show_sent(sent, redacted(uri), name, found, mirror)
    if not found.is_faithful:
        raise typer.Exit(1)


def _show_sent(sent: int, where: str, name: str, found: Check, mirror: JournalMirror) -> None:
    typer.echo(f"sent {counted(sent, 'event')} of the journal to {where}")
    typer.echo(
        f"MLflow holds {counted(found.runs, 'run')} and {counted(found.metrics, 'metric value')} of {name}: "
        f"{_wrong(found)}"
    )
    if found.runs_deleted:
        typer.echo(f"{counted(found.runs_deleted, 'run')} more: deleted there, and not made again")
    if mirror.refused:
        typer.echo(f"MLflow refused {counted(mirror.refused, 'event')}, the last one thus: {mirror.last_refusal}")


def refuse_unusable(tracking_uri: str, study: str) -> str | None:
    """Raise StudyError for a tracking URI that never will do. Where nobody answers at the moment, say so; and why."""
    from sweep.tracking.probe import probe

    if away := probe(tracking_uri, study):
        typer.secho(f"{away}; the sweep runs all the same, and sends MLflow everything later", fg="yellow", err=True)
    return away


def _wrong(found: Check) -> str:
    differing = f", differing {counted(found.differing, 'run')}" if found.differing else ""
    differing += f", missing {counted(found.models_missing, 'model')}" if found.models_missing else ""
    return (
        f"missing {counted(found.runs_missing, 'run')} and {counted(found.metrics_missing, 'value')}, "
        f"doubled {counted(found.runs_doubled, 'run')} and {counted(found.metrics_doubled, 'value')}{differing}"
    )


def ui(
    study: Annotated[str | None, typer.Argument(help="A study's name, folder or URI; none: the newest.")] = None,
    studies: Studies = DEFAULT_STUDIES,
    tracking_uri: TrackingUri = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback is open to others.")
    ] = "127.0.0.1",
    port: Annotated[int, number("--port", "Port to listen on.", 1, 65535)] = 5000,
) -> None:
    """Open MLflow where a study's sweep is mirrored to, on loopback; where that is a server, say its address.

    Example: sweep ui digits --port 5001
    """
    from sweep.errors import StudyError
    from sweep.orchestration.folder import StudyFolder
    from sweep.tracking.address import is_database, redacted
    from sweep.tracking.home import uri_of
    from sweep.tracking.probe import probe
    from sweep.tracking.store import client_of, experiment_of, explaining, identity
    from sweep.tracking.view import page

    folder = StudyFolder.find(studies, study or _newest(studies))
    name, uri = folder.study().experiment, uri_of(folder.path, tracking_uri)
    if away := probe(uri, name):
        raise StudyError(away)
    with explaining(uri, "MLflow's page was not opened"):
        experiment = experiment_of(client_of(uri), name)
    if experiment is None:
        raise StudyError(f"{redacted(uri)} holds nothing of {name} yet: `sweep sync {name}` sends it")
    runs = page(experiment.experiment_id, identity(folder.path))
    if not is_database(uri):
        typer.echo(f"MLflow runs already: {redacted(uri).rstrip('/')}/{runs}")
        return
    _refuse_taken(host, port)
    typer.echo(f"MLflow on {redacted(uri)} (Ctrl-C ends it): http://{host}:{port}/{runs}")
    sys.stdout.flush()
    with _server(uri, host, port, folder.path) as server:
        if code := server.wait():
            raise StudyError(f"MLflow's server ended with code {code}; what it said is above")


def _newest(studies: Path) -> str:
    from sweep.errors import StudyError

    found = sorted(studies.glob("*/mirror.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise StudyError(f"no study in {studies}/ has been sent to MLflow; `sweep run` does so")
    return found[-1].parent.name


def _refuse_taken(host: str, port: int) -> None:
    from sweep.errors import StudyError

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise StudyError(f"cannot listen on {host}:{port} ({error.strerror}); choose --port or --host") from None


@contextmanager
def _server(uri: str, host: str, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server, which ends when this process does, whatever ends that. The database's address, which may hold a
    password, is not among its arguments, where others would see it."""
    settings = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = os.environ | settings | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    signal.signal(signal.SIGTERM, _interrupt)  # a script's `sweep ui &` ignores SIGINT
    server = subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        start_new_session=True,
        preexec_fn=_end_with_parent,  # noqa: PLW1509  # no threads here
    )
    try:
        yield server
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    finally:
        _end(server)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _end(server: subprocess.Popen[bytes]) -> None:
    """End it and all that it started."""
    for kind, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(server.pid, kind)
            server.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _end_with_parent() -> None:
    """Where the system is Linux: be told to end when the parent is gone, even if it was killed."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
