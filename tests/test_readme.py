"""What the README and docs/ say exists: links, commands, layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from sweep.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def test_every_page_can_be_reached() -> None:
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in README] == []


def test_every_command_exists_and_every_one_is_named() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]  # an app of several commands is a group
    named = set(re.findall(r"^sweep (\w+)", README, re.MULTILINE))
    assert named == commands


def test_ci_runs_the_readmes_own_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    for command in ("-e '.[dev]' -c constraints.txt", "pytest -n 2"):
        assert command in README
        assert command in script


def test_every_layer_that_is_named_exists() -> None:
    code = (ROOT / "docs" / "code.md").read_text()
    picture = code.split("```\nsweep/\n")[1].split("```")[0]
    names = [name for line in picture.splitlines() for name in re.match(r"  ((?:\S+ {1,2})+)", line + "  ")[1].split()]  # type: ignore[index]
    missing = [name for name in names if not (ROOT / "sweep" / name.rstrip("/")).with_suffix("").exists()]
    assert [name for name in missing if not (ROOT / "sweep" / f"{name}.py").exists()] == []


def test_no_file_names_a_registry() -> None:
    words = ("py" + "pi.", "python" + "hosted", "npm" + "js")
    files = [
        path
        for suffix in ("py", "md", "toml", "txt")
        for path in ROOT.rglob(f"*.{suffix}")
        if ".venv" not in path.parts
    ]
    assert [str(path) for path in files if any(word in path.read_text() for word in words)] == []
