"""Checkpoints: the old file or the new one, whatever kills the writer; data, never code."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweep.checkpoint import load, load_weights, save, save_weights, write_atomically, write_json, write_text
from sweep.errors import CheckpointError

STATE = {
    "epoch": 3,
    "weights": {"a": torch.arange(6.0).view(2, 3)},
    "history": [{"loss": 0.5}, {"loss": float("nan")}],
    "name": None,
}


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- atomic


def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["file.txt"]


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save(path, STATE)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom sweep.checkpoint import write_atomically\n"
        "def half(temporary):\n    temporary.write_bytes(b'half a checkpoint')\n    os.kill(os.getpid(), 9)\n"
        "write_atomically(Path(sys.argv[1]), half)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False, capture_output=True)
    assert ended.returncode == -9, ended.stderr.decode()
    assert load(path)["epoch"] == 3
    save(path, {**STATE, "epoch": 4})  # what the dead one left behind is in nobody's way
    assert load(path)["epoch"] == 4


def test_the_new_file_is_whole_before_it_takes_its_name(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def look(temporary: Path) -> None:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent, "a rename is atomic within one file system only"

    write_atomically(path, look)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644


def test_folders_are_made_where_they_are_missing(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b" / "value.json", {"x": 1})
    assert (tmp_path / "a" / "b" / "value.json").read_text() == '{\n  "x": 1\n}\n'


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_json_holds_no_number_that_is_not_finite(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "value.json", {"x": bad})
    assert listing(tmp_path) == []


# --- data, never code


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "c.pt", STATE)
    found = load(tmp_path / "c.pt")
    assert torch.equal(found["weights"]["a"], STATE["weights"]["a"])  # type: ignore[index]  # a dict of tensors
    assert (found["epoch"], found["name"], found["history"][0]) == (3, None, {"loss": 0.5})


def test_there_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        load(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="there are no weights at"):
        load_weights(tmp_path / "absent.safetensors")


def test_a_checkpoint_that_cannot_be_opened_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be opened: Is a directory"):
        load(tmp_path)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    path, trace = tmp_path / "c.pt", tmp_path / "it_ran"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload(trace), protocol=2))
    else:
        torch.save({"state": Payload(trace)}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint that can be read"):
        load(path)
    assert not trace.exists()


def test_something_else_than_a_mapping_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2, 3], tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="holds a list, not a checkpoint"):
        load(tmp_path / "c.pt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    save(tmp_path / "c.pt", STATE)
    save_weights(tmp_path / "w.safetensors", {"a": torch.arange(50.0)})
    for name, read in (("c.pt", load), ("w.safetensors", load_weights)):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match="can be read"):
            read(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_junk_is_refused(tmp_path: Path, junk: bytes) -> None:
    for read in (load, load_weights):
        (tmp_path / "c.pt").write_bytes(junk)
        with pytest.raises(CheckpointError):
            read(tmp_path / "c.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_damaged_pickle_inside_a_whole_archive_is_refused_or_read(tmp_path: Path, where: int, byte: int) -> None:
    save(tmp_path / "c.pt", STATE)
    with zipfile.ZipFile(tmp_path / "c.pt") as archive:
        parts = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    pickled = next(part for name, part in parts.items() if name.endswith("data.pkl"))
    pickled[where % len(pickled)] = byte
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, bytes(part))
    try:
        assert isinstance(load(tmp_path / "c.pt"), dict)
    except CheckpointError as error:
        assert str(tmp_path / "c.pt") in str(error)


# --- weights


def test_weights_of_any_layout_come_back_equal(tmp_path: Path) -> None:
    weights = {"w": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last), "b": torch.arange(3)}
    save_weights(tmp_path / "w.safetensors", weights)
    found = load_weights(tmp_path / "w.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)
