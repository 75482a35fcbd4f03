"""The command that writes a search-space file to begin with."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

_STARTERS = resources.files("sweep.cli") / "starters"
_NAMES = ", ".join(sorted(file.name.removesuffix(".txt") for file in _STARTERS.iterdir()))


def new(
    file: Annotated[Path, typer.Argument(help="The file to write; its name becomes the study's.")],
    starter: Annotated[str, typer.Option("--from", help=f"What to begin with: {_NAMES}.")] = "digits",
) -> None:
    """Write a search-space file to begin with, commented; it runs as it is.

    Example: sweep new my_study.py --from digits
    """
    from sweep.errors import StudyError, unknown

    if starter not in _NAMES.split(", "):
        raise StudyError(unknown("starter", starter, _NAMES.split(", ")))
    name = re.sub(r"[^a-z0-9_-]+", "_", file.stem.lower()).lstrip("_-") or "my_study"
    if file.suffix != ".py" or file.stem != name:
        raise StudyError(
            f"{file.name} does not name a study: small letters, digits, - and _, then .py, such as {name}.py"
        )
    if not file.parent.is_dir():
        raise StudyError(f"there is no folder {file.parent} to write {file.name} to")
    text = (_STARTERS / f"{starter}.txt").read_text().replace("{{name}}", name).replace("{{file}}", str(file))
    try:
        with file.open("x") as written:
            written.write(text)
    except FileExistsError:
        raise StudyError(f"{file} is there already, and is not overwritten: choose another name") from None
    typer.echo(f"wrote {file}\nlook at it   sweep check {file}\nrun it       sweep run {file}")
