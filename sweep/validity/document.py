"""The table of all checks in docs/validity.md, written from the checks themselves, so that the two cannot drift."""

from __future__ import annotations

from pathlib import Path

from sweep.validity.base import Check, in_order

BEGIN, END = "<!-- checks: begin -->", "<!-- checks: end -->"


def table() -> str:
    """Every check, a row each, in Markdown."""
    header = "| id | check | level | figure | investigate above | suspect above | why | what to do | source |"
    rows = [_row(check) for check in in_order()]
    return "\n".join([header, "|---|---|---|---|---|---|---|---|---|", *rows])


def _row(check: Check) -> str:
    limits = ["" if limit is None else f"{limit:g}" for limit in (check.investigate, check.suspect)]
    cells = [check.id, check.title, check.level, check.figure, *limits, check.reason, check.remedy, check.source]
    return f"| {' | '.join(cells)} |"


def updated(text: str) -> str:
    """The document with its table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    document = Path("docs/validity.md")
    document.write_text(updated(document.read_text()))
