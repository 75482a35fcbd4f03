"""The command that takes trials away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, IncludeSuspect, Studies

if TYPE_CHECKING:
    from sweep.analysis.export.chosen import Chosen


def export(
    study: Annotated[str, typer.Argument(help="A study's name or folder.")],
    best: Annotated[
        bool, typer.Option("--best", help="The best completed trial that keeps the objective's bounds; unconfirmed.")
    ] = False,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="What `sweep confirm` confirmed: the first of its fresh seeds.")
    ] = False,
    pareto: Annotated[
        bool,
        typer.Option("--pareto", help="Every trial that none beats in objective and clean accuracy: a folder each."),
    ] = False,
    number: Annotated[int | None, typer.Option("--trial", help="This trial.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to write to; none: named after the study and the trial.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an export that is there.")] = False,
    studies: Studies = DEFAULT_STUDIES,
    include_suspect: IncludeSuspect = False,
) -> None:
    """Take a trial away: configuration, weights, figures, a model card, RobustBench's entry.

    The folder runs again with `sweep trial`, and `sweep.load` in Python gives its network, preprocessing inside.

    Example: sweep export digits --best --to best/
    """
    from sweep.analysis.export import bundle, choose
    from sweep.errors import StudyError
    from sweep.orchestration.folder import StudyFolder

    if (best, confirmed, pareto, number is not None).count(True) != 1:
        raise StudyError("choose one of --best, --confirmed, --pareto and --trial N")
    folder = StudyFolder.find(studies, study)
    ledger = folder.ledger()
    if pareto:
        front = choose.front(folder, ledger, include_suspect=include_suspect)
        written = bundle.export_front(front, to or Path(f"{folder.path.name}-front"), force=force)
    else:
        if number is not None:
            chosen = choose.numbered(folder, ledger, number, include_suspect=include_suspect)
        else:
            chosen = (choose.best if best else choose.confirmed)(folder, ledger, include_suspect=include_suspect)
        front = [chosen]
        default = Path(f"{chosen.folder.path.name}-{chosen.trial.number:04d}")
        written = bundle.export(chosen, to or default, force=force)
    for chosen in front:
        typer.echo(_summed_up(chosen))
    typer.echo("\n".join(f"  {path}" for path in written))


def _summed_up(chosen: Chosen) -> str:
    """One exported trial, with what its figures are worth."""
    trial, metric = chosen.trial, chosen.study.objective[0].metric
    figures = (trial.best or {"metrics": {}})["metrics"]
    worst = trial.final["validation/worst_case/adversarial_accuracy"]
    return (
        f"trial {trial.number} ({trial.defense}): {metric} {figures[metric]:.4f}, worst case over its attacks "
        f"{worst:.4f}; {chosen.standing}{' and suspect' if trial.is_suspect else ''}"
    )
