"""The command that lists what a study may name."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sweep.cli.inspect import AsJson


def components(
    kind: Annotated[str | None, typer.Argument(help="Only this kind, such as defense or attack.")] = None,
    as_json: AsJson = False,
) -> None:
    """List everything that a study may name: parameters, defaults, units and sources.

    Example: sweep components alpha_rule
    """
    import sweep.study  # noqa: F401  # registers every component
    from sweep.errors import StudyError, unknown
    from sweep.registry import KINDS

    if kind is not None and kind not in KINDS:
        raise StudyError(unknown("kind of component", kind, KINDS))
    chosen = {name: KINDS[name] for name in ([kind] if kind else sorted(KINDS))}
    if as_json:
        schemas = {k: {n: c.model_json_schema() for n, c in sorted(known.items())} for k, known in chosen.items()}
        typer.echo(json.dumps(schemas, indent=2))
        return
    for name, known in chosen.items():
        _show(name, known)


def _show(name: str, known: dict[str, Any]) -> None:
    from rich.table import Table

    from sweep.cli.tables import console

    console.print(f"[bold underline]{name}[/]")
    for component_name, component in sorted(known.items()):
        first = (component.__doc__ or "").strip().split("\n\n")[0]
        console.print(f"\n  [bold]{component_name}[/]  {' '.join(first.split())}", markup=True)
        table = Table(box=None, padding=(0, 2), show_header=False)
        for field, info in component.model_fields.items():
            table.add_row("   ", f"[cyan]{field}[/]", _default(info), info.description or "")
        if component.model_fields:
            console.print(table)
    console.print()


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.default
    return str(getattr(value, "name", value)) if not isinstance(value, tuple) else ", ".join(map(str, value))
