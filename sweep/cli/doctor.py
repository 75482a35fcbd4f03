"""The command that looks whether a sweep can run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, AsJson, Studies
from sweep.cli.run import Address, StorageUri
from sweep.cli.tracking import TrackingUri

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sweep.datasets import Dataset
    from sweep.orchestration.doctor import Finding


def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="A search-space file: are its data there, and can they be read?")
    ] = None,
    studies: Studies = DEFAULT_STUDIES,
    address: Address = None,
    storage: StorageUri = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Look whether a sweep can run on this machine, or on every node of a cluster, and say what to mend.

    Versions, GPUs, one folder or store of studies for all, room on the disks, MLflow; with a file, its data, which are
    decoded for the trials to come. Exit code 1: something is to be mended.

    Example: sweep doctor search_spaces/digits.py --address auto --studies /mnt/sweep/studies
    """
    from sweep.cli.files import load_study
    from sweep.cli.run import check_address

    study = load_study(file) if file else None
    check_address(address, in_process=False)
    dataset = study.trial_config(next(study.space.corners()), 0).dataset if study else None
    found = [
        *_machines(storage or studies, address, dataset),
        *_tracking(tracking_uri, study.name if study else "doctor"),
    ]
    wrong = [finding for finding in found if finding.remedy]
    if as_json:
        typer.echo(json.dumps({"well": not wrong, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        _show(found)
    if wrong:
        raise typer.Exit(1)


def _machines(studies: Path | str, address: str | None, dataset: Dataset | None) -> Iterator[Finding]:
    """Of this machine, where a sweep runs on it alone; of each node of the cluster otherwise."""
    from sweep.errors import StorageError
    from sweep.orchestration.doctor import Answer, Finding, findings
    from sweep.orchestration.machine import ONE_PLACE, ONE_STORE, look, marked
    from sweep.orchestration.provenance import versions

    config = dataset.model_dump(mode="json") if dataset else None
    try:
        with marked(studies) as mark:
            if address is None:
                answers = [Answer(gethostname(), 0, look(mark, config))]
            else:
                from sweep.orchestration.ray_nodes import ask

                answers = ask(address, look, mark, config)
    except OSError as error:
        yield Finding(gethostname(), "storage", f"{studies} cannot be written ({error.strerror})", ONE_PLACE)
        return
    except StorageError as error:
        yield Finding(gethostname(), "storage", str(error), ONE_STORE)
        return
    yield from findings(answers, versions())


def _tracking(tracking_uri: str | None, study: str) -> Iterator[Finding]:
    """Of MLflow, which only the machine that runs `sweep run` speaks to."""
    from sweep.errors import StudyError
    from sweep.orchestration.doctor import Finding
    from sweep.tracking.address import checked, redacted
    from sweep.tracking.probe import probe

    if tracking_uri is None:
        yield Finding(gethostname(), "MLflow", "none named: a database in each study's folder")
        return
    try:
        away = probe(checked(tracking_uri), study)
    except StudyError as error:
        yield Finding(gethostname(), "MLflow", str(error), "mend --tracking-uri, or what MLFLOW_TRACKING_URI says")
        return
    remedy = "start it; a sweep would run all the same, and send it everything later" if away else None
    yield Finding(gethostname(), "MLflow", away or f"{redacted(tracking_uri)} answers", remedy)


def _show(found: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from sweep.cli.tables import console

    table = Table("machine", "check", "found", title="doctor", title_justify="left")
    for finding in found:
        colour = "red" if finding.remedy else "green"
        table.add_row(escape(finding.node), f"[{colour}]{finding.check}[/]", escape(finding.found))
    console.print(table)
    for finding in found:
        if finding.remedy:
            wrong = f"{finding.node}, {finding.check}: {finding.found}; {finding.remedy}"
            console.print(f"[red]to mend[/] {escape(wrong)}", soft_wrap=True)
    if not any(finding.remedy for finding in found):
        console.print("[green]a sweep can run[/]")
