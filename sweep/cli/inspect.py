"""Commands that look and change nothing: check, status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

Studies = Annotated[Path, typer.Option("--studies", help="Folder that holds the study folders.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
IncludeSuspect = Annotated[
    bool, typer.Option("--include-suspect", help="Also trials whose adversarial accuracy a validity check disbelieves.")
]
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
    include_suspect: IncludeSuspect = False,
) -> None:
    """Show where a study stands, also while it runs: nothing is locked.

    Example: sweep status digits
    """
    from sweep.analysis.results import trial_rows
    from sweep.analysis.standing import standing
    from sweep.cli import tables
    from sweep.cli.verdict import show_confirmation, show_openings
    from sweep.orchestration.folder import StudyFolder

    folder = StudyFolder.find(studies, study)
    found = standing(folder)
    if as_json:
        typer.echo(json.dumps({"study": found.row(), "trials": trial_rows(found.ledger)}, indent=2))
        return
    tables.show_standing(found)
    if found.study.confirms:
        show_confirmation(folder)
    else:
        tables.show_results(found.study, found.ledger, include_suspect=include_suspect)
        show_openings(folder)
