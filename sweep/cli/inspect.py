"""Commands that look and change nothing: check, status, components, ui."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Studies = Annotated[Path, typer.Option("--studies", help="Folder that holds the study folders.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DEFAULT_STUDIES = Path("studies")


def check(
    file: Annotated[Path, typer.Argument(help="A search-space file, such as search_spaces/digits.py.")],
    as_json: AsJson = False,
) -> None:
    """Print what a study means, and every mistake in it, before anything starts.

    Example: sweep check search_spaces/digits.py
    """
    from sweep.cli import tables
    from sweep.cli.files import load_study
    from sweep.preview import summary

    study = load_study(file)
    if as_json:
        typer.echo(json.dumps(summary(study), indent=2))
    else:
        tables.show_preview(study)


def status(
    study: Annotated[str, typer.Argument(help="A study's name or folder.")],
    studies: Studies = DEFAULT_STUDIES,
    as_json: AsJson = False,
) -> None:
    """Show where a study stands, also while it runs.

    Example: sweep status digits
    """
    from sweep.analysis.results import trial_rows
    from sweep.cli import tables
    from sweep.orchestration.folder import StudyFolder

    folder = StudyFolder.find(studies, study)
    ledger = folder.ledger()
    if as_json:
        typer.echo(json.dumps(trial_rows(ledger), indent=2))
    else:
        tables.show_results(folder.study(), ledger)


def components(
    kind: Annotated[str | None, typer.Argument(help="Only this kind, such as defense or attack.")] = None,
    as_json: AsJson = False,
) -> None:
    """List everything that a study may name: parameters, defaults, units and sources.

    Example: sweep components alpha_rule
    """
    from sweep.cli import tables

    tables.show_components(kind, as_json)


def ui(
    study: Annotated[str | None, typer.Argument(help="A study's name or folder; none: the newest.")] = None,
    studies: Studies = DEFAULT_STUDIES,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback is open to others.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
) -> None:
    """Open MLflow on a study's own store, on loopback.

    Example: sweep ui digits --port 5001
    """
    from sweep.errors import StudyError
    from sweep.orchestration.folder import StudyFolder
    from sweep.tracking.mlflow import local_uri

    if study is None:
        found = sorted(studies.glob("*/mlflow.db"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise StudyError(f"no study in {studies}/ has an MLflow store; `sweep run` makes one")
        study = found[-1].parent.name
    folder = StudyFolder.find(studies, study)
    page = "#/experiments/1/runs?workflowType=machine_learning"  # where the runs are; the first page is for other uses
    typer.echo(f"MLflow on {folder.path} (Ctrl-C ends it): http://{host}:{port}/{page}")
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = [
        "server",
        "--backend-store-uri",
        local_uri(folder.path),
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", *server], environment)
