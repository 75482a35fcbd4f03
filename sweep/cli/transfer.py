"""The command that attacks an exported trial with points made on other ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.inspect import AsJson


def transfer(
    target: Annotated[Path, typer.Argument(help="The exported trial that is judged: a folder.")],
    sources: Annotated[list[Path], typer.Argument(help="Exported trials on whose networks the points are made.")],
    attack: Annotated[
        str | None,
        typer.Option(
            "--attack", metavar="NAME", help="A name, or JSON. Default: the target's first validation attack."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Attack one trial's network with points made on other networks: its validation images, its threat model.

    Who has the target's own gradients knows more than who has a substitute. Where a substitute's points break images
    that the white-box attack leaves standing, the white-box figure is too high.

    Example: sweep transfer best/ standard/ trades/ --attack pgd
    """
    from sweep.cli import tables
    from sweep.cli.files import json_or_text
    from sweep.exported import judge_transfer

    found = judge_transfer(target, sources, None if attack is None else json_or_text(attack, "--attack"))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        tables.show_transfer(found)
