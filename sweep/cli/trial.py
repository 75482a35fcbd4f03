"""Commands about one trial: run it alone, take it away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sweep.cli.inspect import DEFAULT_STUDIES, Studies


def trial(
    config: Annotated[Path, typer.Argument(help="A configuration (JSON), or a folder that holds config.json.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value; may be given again.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for checkpoint, weights and figures; none: keep nothing.")
    ] = None,
) -> None:
    """Train one configuration here, alone, without Ray, Optuna or MLflow: the debugger's door.

    Where metrics.json lies beside the configuration, the figures are compared with it, to the last digit.

    Example: sweep trial best/ --set optimizer.learning_rate=0.05 --to /tmp/again
    """
    from sweep.cli import tables
    from sweep.cli.files import load_json, with_settings
    from sweep.configuration import TrialConfig
    from sweep.registry import validated
    from sweep.trial import Trial

    chosen = validated(TrialConfig, with_settings(load_json(config), settings or []), str(config))
    running = Trial(chosen, to)
    with tables.epochs(chosen) as show:
        for result in running.run():
            show(result)
    summary = running.summary(running.finish())
    tables.show_summary(summary)
    _compare(config, summary)


def _compare(config: Path, summary: dict[str, Any]) -> None:
    """Say whether the figures are those that were exported with the configuration."""
    before = (config if config.is_dir() else config.parent) / "metrics.json"
    if not before.exists():
        return
    known = json.loads(before.read_text())
    if known.get("fingerprint") != summary["fingerprint"]:
        typer.echo(f"another configuration than that of {before}: figures are not compared")
        return
    differing = [
        f"{part}.{name}: {known[part][name]!r} then, {value!r} now"
        for part in ("selected", "final")
        for name, value in summary[part].items()
        if "seconds" not in name and "memory" not in name and known[part].get(name) != value
    ]
    if differing:
        typer.secho(f"not the figures of {before}:\n  " + "\n  ".join(differing), fg="yellow")
        raise typer.Exit(1)
    typer.secho(f"reproduced: every figure of {before}, to the last digit", fg="green")


def export(
    study: Annotated[str, typer.Argument(help="A study's name or folder.")],
    best: Annotated[
        bool, typer.Option("--best", help="The best completed trial that keeps the objective's bounds.")
    ] = False,
    number: Annotated[int | None, typer.Option("--trial", help="This trial.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to write to; none: the study's name and the trial's number.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    studies: Studies = DEFAULT_STUDIES,
) -> None:
    """Take a trial away: config.json (runs again with `sweep trial`), model.safetensors, metrics.json.

    Example: sweep export digits --best --to best/
    """
    from sweep.analysis import export as exporting
    from sweep.errors import StudyError
    from sweep.orchestration.folder import StudyFolder

    if best == (number is not None):
        raise StudyError("choose one of --best and --trial N")
    folder = StudyFolder.find(studies, study)
    ledger = folder.ledger()
    chosen = exporting.best(folder, ledger) if number is None else exporting.completed(ledger, number)
    target = to or Path(f"{folder.path.name}-{chosen.number:04d}")
    written = exporting.export(folder, chosen, target, force=force)
    metric = folder.study().objective[0].metric
    typer.echo(f"trial {chosen.number} ({chosen.defense}): {metric} {chosen.best['metrics'][metric]:.4f}, unconfirmed")  # type: ignore[index]
    typer.echo("\n".join(f"  {path}" for path in written))
