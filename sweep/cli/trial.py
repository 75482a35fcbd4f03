"""The command that runs one trial alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.inspect import AsJson, messages_aside

if TYPE_CHECKING:
    from sweep.configuration import TrialConfig


def trial(
    config: Annotated[Path, typer.Argument(help="A configuration (JSON), or a folder that holds config.json.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value; may be given again.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for checkpoint, weights and figures; none: keep nothing.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train one configuration here, alone, without Ray, Optuna or MLflow: the debugger's door.

    Where metrics.json lies beside the configuration, the figures are compared with it, to the last digit.

    Example: sweep trial best/ --set optimizer.learning_rate=0.05 --to /tmp/again
    """
    from sweep.cli.files import known_metrics, with_settings
    from sweep.configuration import TrialConfig
    from sweep.errors import StudyError
    from sweep.exported import load_json
    from sweep.registry import validated
    from sweep.trial import holds_another

    source = config if config.is_dir() else config.parent
    chosen = validated(TrialConfig, with_settings(load_json(config), settings or []), str(config))
    known = known_metrics(source / "metrics.json")  # before anything is written
    if chosen.test_attacks and (known is None or known["fingerprint"] != chosen.fingerprint):
        raise StudyError(
            "test_attacks: `sweep confirm` alone opens the test split, and records it; a trial alone may only repeat "
            "what was confirmed: --set 'test_attacks=[]'"
        )
    if to is not None and any((to / name).exists() for name in ("metrics.json", "model.safetensors")):
        raise StudyError(f"{to} holds a finished trial already; choose another folder")
    if to is not None and holds_another(to, chosen):
        raise StudyError(f"{to} holds a trial of another configuration; choose another folder")
    with messages_aside(as_json):
        summary = _trained(chosen, to)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
    if known is not None:
        with messages_aside(as_json):
            _compare(source, known, summary)


def _trained(config: TrialConfig, to: Path | None) -> dict[str, Any]:
    """The trial's figures, each epoch's shown when it is done."""
    from sweep.checkpoint import discard
    from sweep.cli import tables
    from sweep.trial import CHECKPOINT, Trial

    running = Trial(config, to)
    if running.note:
        typer.secho(running.note, fg="yellow", err=True)
    if running.results:
        typer.echo(f"going on from epoch {running.results[-1].epoch}, from {to}/{CHECKPOINT}")
    for result in running.run():
        tables.show_epoch(config, result)
    summary = running.summary(running.finish())
    if to is not None:
        discard(to / CHECKPOINT)
    tables.show_summary(summary)
    return summary


def _compare(source: Path, known: dict[str, Any], summary: dict[str, Any]) -> None:
    """Say whether the figures are those that were exported with the configuration."""
    before = source / "metrics.json"
    if known["fingerprint"] != summary["fingerprint"]:
        typer.echo(f"another configuration than that of {before}: figures are not compared")
        return
    differing = [
        f"{part}.{name}: {known[part].get(name)!r} then, {value!r} now"
        for part in ("selected", "final")
        for name, value in summary[part].items()
        if "seconds" not in name and "memory" not in name and known[part].get(name) != value
    ]
    if differing:
        typer.secho(f"not the figures of {before}:\n  " + "\n  ".join(differing), fg="yellow")
        raise typer.Exit(1)
    if known.get("validity"):
        _compare_validity(before, known["validity"], summary["validity"])
    typer.secho(f"reproduced: every figure of {before}, to the last digit", fg="green")


def _compare_validity(before: Path, known: dict[str, Any], now: dict[str, Any]) -> None:
    """The same of the validity checks, of which a later version may have more."""
    differing = [
        f"{name}: {value!r} then, {now['figures'][name]!r} now"
        for name, value in known["figures"].items()
        if name in now["figures"] and now["figures"][name] != value
    ]
    if differing:
        typer.secho(f"not the validity figures of {before}:\n  " + "\n  ".join(differing), fg="yellow")
        raise typer.Exit(1)
    if unlike := sorted(known["figures"].keys() ^ now["figures"].keys()):
        typer.echo(f"validity figures of one version only, which are not compared: {', '.join(unlike)}")
