"""Checkpoints that are over, damaged, or of another time: none costs the sweep a trial, and losers keep no disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import asked, cut, events, figures, finish, report, searching, tiny

from sweep.checkpoint import load, load_weights
from sweep.errors import CheckpointError
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import Search, opened
from sweep.study import Budget

STUDY = tiny(budget=Budget(trials=2))
SOURCES = Path(__file__).resolve().parents[2] / "sweep"


def swept(root: Path, *, interrupted_after: int | None = None) -> Path:
    """The study, run in this process, to its end or until it has heard so many epochs."""
    heard = 0

    def count(event: Any) -> None:
        nonlocal heard
        heard += event["event"] == "reported"
        if heard == interrupted_after:
            search.interrupted = True

    folder = StudyFolder(root / STUDY.name)
    if not folder.path.exists():
        StudyFolder.create(root, STUDY)
    with opened(folder, count) as search:
        in_process.run(search)
    return folder.path


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return swept(tmp_path_factory.mktemp("unbroken"))


def files(folder: Path, number: int) -> set[str]:
    return {path.name for path in StudyFolder(folder).trial(number).iterdir()}


def test_a_trial_that_is_over_keeps_its_weights_and_no_checkpoint(unbroken: Path) -> None:
    for number in (0, 1):
        assert files(unbroken, number) == {"config.json", "metrics.json", "best.safetensors", "last.safetensors"}


@pytest.mark.parametrize(("end", "kept"), [("diverged", False), ("completed", False), ("failed", True)])
def test_checkpoints_go_with_their_trial_unless_it_may_be_taken_up_again(tmp_path: Path, end: str, kept: bool) -> None:
    def left_by(search: Search) -> Path:
        folder = search.folder.trial(0)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".checkpoint.pt.k1lled").write_bytes(b"half of one")  # by a process killed while writing
        (folder / "checkpoint.pt").write_bytes(b"a checkpoint")
        return folder

    with searching(tmp_path) as search:
        report(search, asked(search).number, 1, 0.5)
        folder = left_by(search)
        finish(search, 0, end)
        assert (folder / "checkpoint.pt").exists() == (folder / ".checkpoint.pt.k1lled").exists() == kept
        left_by(search)  # the sweep is killed between the end and the deletion
    with searching(tmp_path):
        assert (folder / "checkpoint.pt").exists() == kept


def test_a_damaged_checkpoint_is_set_aside_said_and_costs_nothing_but_time(tmp_path: Path, unbroken: Path) -> None:
    folder = swept(tmp_path, interrupted_after=2)
    path = folder / "trials" / "0000" / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    swept(tmp_path)
    (noted,) = events(folder, "noted")
    assert noted["trial"] == 0 and "does not match its checksum" in noted["text"]
    assert "checkpoint.pt.set-aside-1" in files(folder, 0) and "checkpoint.pt" not in files(folder, 0)
    told = [(event["trial"], event["epoch"]) for event in events(folder, "reported")]
    assert sorted(told) == [(trial, epoch) for trial in (0, 1) for epoch in (1, 2, 3)]
    assert figures(folder) == figures(unbroken)


def test_folders_of_trials_that_an_older_journal_does_not_know(tmp_path: Path, unbroken: Path) -> None:
    """The journal was restored from a copy made in the first trial's second epoch; the files are of later."""
    folder = swept(tmp_path)
    cut(folder, events_left=4)
    foreign = folder / "trials" / "0001" / "config.json"
    foreign.write_text(foreign.read_text().replace('"epochs": 3', '"epochs": 4'))  # another proposal had the number
    swept(tmp_path)
    assert figures(folder) == figures(unbroken)
    (noted,) = events(folder, "noted")
    assert noted["trial"] == 1 and "another configuration" in noted["text"]
    assert (folder / "trials" / "0001.set-aside-1" / "best.safetensors").exists()
    assert files(folder, 1) == files(unbroken, 1)


class Payload:
    """A pickle that writes a file where it is loaded as code."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_malicious_checkpoint_is_data_that_is_refused(tmp_path: Path) -> None:
    folder = swept(tmp_path, interrupted_after=1)
    trace = tmp_path / "it_ran"
    path = folder / "trials" / "0000" / "checkpoint.pt"
    torch.save({**load(path), "best": Payload(trace)}, path)
    swept(tmp_path)
    assert "is not a checkpoint that can be read" in events(folder, "noted")[0]["text"]
    assert [event["end"] for event in events(folder, "ended")] == ["completed", "completed"]
    torch.save({"weight": Payload(trace)}, tmp_path / "best.safetensors")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_weights(tmp_path / "best.safetensors")
    assert not trace.exists()


def test_nothing_loads_what_could_be_code() -> None:
    forbidden = re.compile(r"\b(pickle|cloudpickle|dill|joblib|shelve|marshal)\b|allow_pickle|\bweights_only=False")
    loads = []
    for path in SOURCES.rglob("*.py"):
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", path.read_text())
        assert not forbidden.search(code), path
        loads += [(path.name, line) for line in code.splitlines() if re.search(r"\b(torch|np|numpy)\.load\(", line)]
    assert [name for name, _ in loads] == ["checkpoint.py"]
    assert "weights_only=True" in loads[0][1]
