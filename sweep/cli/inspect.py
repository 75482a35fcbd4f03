"""Commands that look and change nothing: check, status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sweep.orchestration.folder import StudyFolder

Studies = Annotated[Path, typer.Option("--studies", help="Folder that holds the study folders.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
IncludeSuspect = Annotated[
    bool, typer.Option("--include-suspect", help="Also trials whose adversarial accuracy a validity check disbelieves.")
]
DEFAULT_STUDIES = Path("studies")


@contextmanager
def messages_aside(as_json: bool) -> Iterator[None]:
    """With --json, what is printed meanwhile goes to standard error: standard output is for the JSON alone."""
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        yield


def told(folder: StudyFolder) -> str:
    """A study as JSON: where it stands, its trials, and of a confirmation what it found."""
    from sweep.analysis.confirm import outcome
    from sweep.analysis.results import trial_rows
    from sweep.analysis.standing import standing

    found = standing(folder)
    confirmed = [asdict(one) for one in outcome(folder)] if found.study.confirms else None
    whole = {"study": found.row(), "trials": trial_rows(found.ledger), "confirmed": confirmed}
    return json.dumps(whole, indent=2)


def check(
    file: Annotated[Path, typer.Argument(help="A search-space file, such as search_spaces/digits.py.")],
    as_json: AsJson = False,
) -> None:
    """Print what a study means, and every mistake in it, before anything starts.

    Example: sweep check search_spaces/digits.py
    """
    from sweep.cli.files import load_study
    from sweep.cli.plan import show_preview
    from sweep.preview import summary

    study = load_study(file)
    if as_json:
        typer.echo(json.dumps(summary(study), indent=2))
    else:
        show_preview(study)


def status(
    study: Annotated[str, typer.Argument(help="A study's name, folder or URI.")],
    studies: Studies = DEFAULT_STUDIES,
    as_json: AsJson = False,
    include_suspect: IncludeSuspect = False,
) -> None:
    """Show where a study stands, also while it runs: nothing is locked.

    Example: sweep status digits
    """
    from sweep.analysis.standing import standing
    from sweep.cli import tables
    from sweep.cli.verdict import show_confirmation, show_openings
    from sweep.orchestration.folder import StudyFolder

    folder = StudyFolder.find(studies, study)
    if as_json:
        typer.echo(told(folder))
        return
    found = standing(folder)
    tables.show_standing(found)
    if found.study.confirms:
        show_confirmation(folder)
    else:
        tables.show_results(found.study, found.ledger, include_suspect=include_suspect)
        show_openings(folder)
