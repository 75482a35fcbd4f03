"""What docs/json.md says is what `--json` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from test_commands import TINY, documented, stdout, sweep
from tiny_study import complete, searching, tiny

TEXT = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


def test_every_key_is_documented_and_every_documented_one_is_there(tmp_path: Path) -> None:
    for seed in (0, 1):
        with searching(tmp_path / "studies", tiny(name=f"tiny-{seed}", seed=seed)) as search:
            complete(search, 0.2, 0.4, 0.3)
    (tmp_path / "tiny.py").write_text(TINY)

    def told(*arguments: str) -> Any:
        return json.loads(sweep(*arguments, "--json", folder=tmp_path))

    row, other = told("list")
    assert row.keys() == other.keys() == documented("list")
    assert all(f"`{key}`" in TEXT for part in ("best", "budget") for key in row[part])
    status = told("status", "tiny-0")
    assert status.keys() == documented("status, run, resume, confirm")
    assert status["study"].keys() == row.keys() and status["confirmed"] is None
    assert all(f"`{key}`" in TEXT for key in status["trials"][0] if "/" not in key)
    sent = told("sync", "tiny-0")
    assert sent.keys() == documented("sync") and sent["faithful"] and sent["runs"] == 2
    plan = told("check", "tiny.py")
    assert plan.keys() == documented("check")
    assert all(f"`{key}`" in TEXT for part in (plan["branches"][0], plan["validity"]) for key in part)


def test_compare_without_networks_says_so_and_is_json_still(tmp_path: Path) -> None:
    for seed in (0, 1):
        with searching(tmp_path / "studies", tiny(name=f"tiny-{seed}", seed=seed)) as search:
            complete(search, 0.2, 0.4, 0.3)
    out, err = stdout("compare", "tiny-0", "tiny-1", "--json", folder=tmp_path)
    told = json.loads(out)
    assert told.keys() == documented("compare") and told["paired"] is None
    assert told["words"][0] == "nothing can be said of the two on the same images: their networks are not kept"
    assert "best.safetensors cannot be read" in err
    (sides,) = [sides for sides in told["defenses"].values() if all(side["trials"] for side in sides)] or [[]]
    assert all(side["value"] == 0.4 for side in sides)
