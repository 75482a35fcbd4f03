"""Commands about whole studies: which there are, and two of them held against one another."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, AsJson, Studies

if TYPE_CHECKING:
    from sweep.analysis.contrast import Side
    from sweep.analysis.standing import Standing

_LONGEST_HEADING = 16  # letters of a study's name above a column; a longer one is told below the table


def list_studies(
    root: Annotated[
        str | None, typer.Argument(help="A folder of studies, or a store's URI; none: --studies.", show_default=False)
    ] = None,
    studies: Studies = DEFAULT_STUDIES,
    as_json: AsJson = False,
) -> None:
    """List the studies of a folder or store: where each stands, its best trial, and whether that is confirmed.

    What a store's journals say is brought to --studies.

    Example: sweep list s3://bucket/studies
    """
    from sweep.analysis.standing import standing, within
    from sweep.cli.tables import console, figures_table
    from sweep.errors import StudyError, SweepError
    from sweep.orchestration.folder import StudyFolder
    from sweep.orchestration.storage import is_uri

    root, found = root or str(studies), []
    if not is_uri(root) and studies not in (Path(root), DEFAULT_STUDIES):
        raise StudyError(f"{root} and --studies {studies} are two folders: give one of them")
    for place in within(root):
        try:
            found.append(standing(StudyFolder.find(studies, place) if is_uri(place) else StudyFolder(Path(place))))
        except SweepError as error:  # one that is damaged hides no other
            typer.secho(f"{place}: {str(error).splitlines()[0]}", fg="yellow", err=True)
    if as_json:
        typer.echo(json.dumps([one.row() for one in found], indent=2))
        return
    table = figures_table(root, ("study", "state", "trials", "best", "of trial", "it is", "age"), words=("study",))
    for one in found:
        table.add_row(*_listed(one))
    console.print(table if found else f"no studies in {root} yet; `sweep run` makes one")


def compare(
    first: Annotated[str, typer.Argument(help="A study's name, folder or URI.")],
    second: Annotated[str, typer.Argument(help="Another one's.")],
    studies: Studies = DEFAULT_STUDIES,
    as_json: AsJson = False,
) -> None:
    """Hold two studies against one another: by defense, and their best ones on the same images.

    They must judge alike (threat model, data, attack, objective), or it is said why nothing can be compared.

    Example: sweep compare digits digits-longer
    """
    from sweep.analysis import contrast
    from sweep.analysis.standing import standing
    from sweep.cli.tables import console, figures_table
    from sweep.orchestration.folder import StudyFolder

    one, other = (standing(StudyFolder.find(studies, name)) for name in (first, second))
    contrast.refuse_incomparable(one, other)
    defenses = contrast.by_defense(one, other)
    paired = contrast.paired(one, other, lambda text: typer.echo(text, err=True))
    words = list(contrast.words(one, other, paired))
    if as_json:
        rows = {name: [asdict(side) for side in sides] for name, sides in defenses.items()}
        whole = {"studies": [one.row(), other.row()], "defenses": rows, "paired": paired and asdict(paired)}
        typer.echo(json.dumps(whole | {"words": words}, indent=2))
        return
    names = contrast.names(one, other)
    title = f"{one.study.objective[0].metric}: each defense's best completed trial"
    shown = names if max(map(len, names)) <= _LONGEST_HEADING else ("first", "second")
    table = figures_table(title, ("defense", *shown, "difference", *(f"cost of {name}" for name in shown)))
    for name, sides in defenses.items():
        table.add_row(name, *_contrasted(*sides))
    console.print(table)
    if shown != names:
        console.print(f"first: {names[0]}; second: {names[1]}", markup=False)
    for sentence in words:
        console.print(sentence, markup=False)


def _listed(one: Standing) -> list[str]:
    best, study = one.best, one.study
    if best is None or best.best is None:
        said = ["", f"confirms {study.confirms.study}" if study.confirms else "none counts", ""]
    else:
        said = [f"{best.best['metrics'][study.objective[0].metric]:.3f}", f"{best.number} ({best.defense})", one.label]
    return [one.folder.path.name, one.state, f"{len(one.ledger.trials)}/{study.budget.trials}", *said, age(one.age)]


def _contrasted(first: Side, second: Side) -> list[str]:
    from sweep.preview import describe_cost

    values = [f"{side.value:.3f} (trial {side.trial})" if side.value is not None else "" for side in (first, second)]
    both = first.value is not None and second.value is not None
    gap = f"{(first.value or 0) - (second.value or 0):+.3f}" if both else ""
    return [*values, gap, *(f"{describe_cost(side.gradient_evaluations)} ({side.trials})" for side in (first, second))]


def age(seconds: float) -> str:
    """A time in one unit: 5 s, 3 min, 7 h, 12 d."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
