"""The command that takes trials away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli import numbers
from sweep.cli.inspect import DEFAULT_STUDIES, AsJson, IncludeSuspect, Studies
from sweep.cli.tracking import TrackingUri

if TYPE_CHECKING:
    from sweep.analysis.export.chosen import Chosen
    from sweep.orchestration.folder import StudyFolder

_CHAMPION = "Also a version of this model in MLflow: the champion, if none there is better."
Register = Annotated[str | None, typer.Option("--register", metavar="NAME", help=_CHAMPION)]


def export(
    study: Annotated[str, typer.Argument(help="A study's name, folder or URI.")],
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
    number: Annotated[int | None, numbers.number("--trial", "This trial.", 0)] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to write to; none: named after the study and the trial.")
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also model.onnx, whose logits are compared with the network's.")
    ] = False,
    register: Register = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an export that is there.")] = False,
    studies: Studies = DEFAULT_STUDIES,
    include_suspect: IncludeSuspect = False,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Take a trial away: configuration (for `sweep trial`), weights (for `sweep.load` in Python), figures, model card.

    Example: sweep export digits --best --to best/
    """
    from sweep.errors import StudyError
    from sweep.orchestration.folder import StudyFolder

    if (best, confirmed, pareto, number is not None).count(True) != 1:
        raise StudyError("choose one of --best, --confirmed, --pareto and --trial N")
    if pareto and register:
        raise StudyError("--register makes one trial the champion: choose it with --trial N")
    folder = StudyFolder.find(studies, study)
    found = _chosen(folder, best, confirmed, number, include_suspect)
    written = _written(folder, found, pareto, to, force, onnx)
    if not as_json:
        typer.echo("\n".join([*map(_summed_up, found), *(f"  {path}" for path in written)]))
    done = None if register is None else _register(found[0], register, tracking_uri)
    if as_json:
        told = {"exported": [_row(one) for one in found], "files": [*map(str, written)], "registered": done}
        typer.echo(json.dumps(told, indent=2))
    elif done:
        typer.echo(_registered(done))


def _written(
    folder: StudyFolder, found: list[Chosen], pareto: bool, to: Path | None, force: bool, onnx: bool
) -> list[Path]:
    from sweep.analysis.export import bundle

    if pareto:
        return bundle.export_front(found, to or Path(f"{folder.path.name}-front"), force=force, onnx=onnx)
    default = Path(f"{found[0].folder.path.name}-{found[0].trial.number:04d}")
    return bundle.export(found[0], to or default, force=force, onnx=onnx)


def _chosen(
    folder: StudyFolder, best: bool, confirmed: bool, number: int | None, include_suspect: bool
) -> list[Chosen]:
    """The trial that was asked for; where none was by itself, the front."""
    from sweep.analysis.export import choose

    ledger = folder.ledger()
    if number is not None:
        return [choose.numbered(folder, ledger, number, include_suspect=include_suspect)]
    if best or confirmed:
        return [(choose.best if best else choose.confirmed)(folder, ledger, include_suspect=include_suspect)]
    return choose.front(folder, ledger, include_suspect=include_suspect)


def _register(chosen: Chosen, name: str, tracking_uri: str | None) -> dict[str, Any]:
    """Send MLflow what it lacks of the study, then make the trial's model a version there; docs/json.md says what comes
    back."""
    from sweep.analysis.export.claim import claim
    from sweep.errors import StudyError
    from sweep.tracking import models
    from sweep.tracking.address import redacted
    from sweep.tracking.home import uri_of
    from sweep.tracking.mlflow import Mirror
    from sweep.tracking.probe import probe

    searched = chosen.folder.searched()
    home = searched if searched is not None and searched.exists() else chosen.folder.path
    uri, experiment = uri_of(home, tracking_uri), chosen.study.experiment
    if away := probe(uri, experiment):
        raise StudyError(f"{away}; the export is written, and --register may be asked for again")
    Mirror(chosen.folder.path, uri, experiment, searched).sync()
    done = models.register(uri, chosen.folder, chosen.trial.number, name, claim(chosen))
    return {"name": name, "tracking_uri": redacted(uri), **done._asdict()}


def _registered(done: dict[str, Any]) -> str:
    what = f"version {done['version']} of {done['name']} in {done['tracking_uri']}"
    if done["reason"] is None:
        return f"{what}, the champion: models:/{done['name']}@champion"
    stays = f"version {done['other']} stays champion" if done["other"] else "there is no champion"
    return f"{what}; {stays}: {done['reason']}"


def _row(chosen: Chosen) -> dict[str, Any]:
    """One exported trial as JSON; docs/json.md says what each key holds."""
    metric = chosen.study.objective[0].metric
    return {
        "study": chosen.study.name,
        "trial": chosen.trial.number,
        "defense": chosen.trial.defense,
        "metric": metric,
        "value": (chosen.trial.best or {"metrics": {}})["metrics"][metric],
        "worst_case": chosen.trial.final["validation/worst_case/adversarial_accuracy"],
        "confirmed": chosen.is_confirmed,
        "suspect": chosen.is_suspect,
        "standing": chosen.standing,
    }


def _summed_up(chosen: Chosen) -> str:
    """One exported trial, with what its figures are worth."""
    from sweep.analysis.confirm import spread

    trial, metric = chosen.trial, chosen.study.objective[0].metric
    figures = (trial.best or {"metrics": {}})["metrics"]
    worst = trial.final["validation/worst_case/adversarial_accuracy"]
    claim = ""
    if chosen.study.confirms and chosen.candidate:
        claim = f", whose networks withstand every attack on {spread(chosen.candidate.worst_case)} of the test images"
    return (
        f"{chosen.title}; {metric} {figures[metric]:.4f}, worst case over its attacks "
        f"{worst:.4f}; {chosen.standing}{claim}{' and suspect' if chosen.is_suspect else ''}"
    )
