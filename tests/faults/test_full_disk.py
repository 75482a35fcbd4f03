"""A disk that fills, for real (a small tmpfs): no trial is blamed, nothing written is lost, and the sweep goes on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from processes import paused, pausing
from test_commands import sweep
from tiny_study import events, figures, tiny

from sweep import disk
from sweep.checkpoint import save, save_weights, write_json
from sweep.datasets.cache import Decoded, decoded_once
from sweep.errors import DiskFullError, JournalError
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.study import Budget

STUDY = tiny(budget=Budget(trials=2))
ROOM = 96 * 2**20  # bytes of the small disk: enough for trials to begin


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs Linux and root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leaving: int = 0) -> Path:
    """Take all of a disk but so many bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, disk.free(folder) - leaving)
            file.seek(0, os.SEEK_END)
            while not leaving:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return ballast


def swept(folder: StudyFolder, fill_at: str = "") -> None:
    """Run the study; the disk fills the moment this event is on it."""

    def listen(event: Any) -> None:
        if event["event"] == fill_at:
            fill(folder.path.parent)

    with opened(folder, listen) as search:
        in_process.run(search)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    folder = StudyFolder.create(tmp_path_factory.mktemp("unbroken"), STUDY)
    swept(folder)
    return figures(folder.path)


@pytest.mark.parametrize("moment", ["session", "asked", "started", "reported", "ended"])
def test_a_disk_that_fills_halts_the_sweep_and_no_trial_fails(
    small: Path, unbroken: dict[int, Any], moment: str
) -> None:
    folder = StudyFolder.create(small, STUDY)
    with pytest.raises((DiskFullError, JournalError)) as halted:
        swept(folder, fill_at=moment)
    assert str(folder.path) in str(halted.value)
    assert "resume" in str(halted.value)
    written = events(folder.path)
    assert all(event["end"] == "completed" for event in written if event["event"] == "ended")
    (small / "ballast").unlink()
    swept(folder)
    assert events(folder.path)[: len(written)] == written
    assert events(folder.path, "noted") == []
    told = [(event["trial"], event["epoch"]) for event in events(folder.path, "reported")]
    assert len(told) == len(set(told)) == 6
    assert figures(folder.path) == unbroken


def test_nothing_begins_where_there_is_too_little_room(small: Path) -> None:
    folder = StudyFolder.create(small, STUDY)
    ballast = fill(small, leaving=10 * 2**20)
    with pytest.raises(DiskFullError, match=r"10.0 MB are free on its disk, and nothing begins below 64.0 MB; make"):
        swept(folder)
    assert [event["event"] for event in events(folder.path)] == ["session", "closed"]
    ballast.unlink()
    swept(folder)
    assert len(events(folder.path, "ended")) == 2


def test_every_writer_says_that_the_disk_is_full(small: Path) -> None:
    import numpy as np
    import torch

    tensor = torch.rand(100_000)
    (small / "old.json").write_text("{}")
    fill(small)
    writers = {
        "c.pt": partial(save, state={"a": tensor}),
        "w.safetensors": partial(save_weights, weights={"a": tensor}),
        "old.json": partial(write_json, value=["x" * 50_000]),
    }
    for name, write in writers.items():
        with pytest.raises(DiskFullError, match=rf"{name}: its disk is full \(0.0 MB free\); make some room"):
            write(small / name)
    assert {path.name for path in small.iterdir()} == {"old.json", "ballast"}
    assert (small / "old.json").read_text() == "{}"
    images = (np.zeros((1, 100, 100), dtype=np.uint8) for _ in range(50))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DiskFullError, match="SWEEP_CACHE_DIR"):
        patch.setenv("SWEEP_CACHE_DIR", str(small / "cache"))
        decoded_once("x", {}, [], None, lambda: Decoded(images, np.zeros(50, dtype=np.int64), 2))


FILE = '''"""Two trials, long enough for the disk to fill meanwhile."""

from sweep.study import Budget, Maximize, SearchSpace, Study

STUDY = Study(
    name="tiny",
    space=SearchSpace(
        dataset=dict(name="digits", train_size=400),
        model=dict(name="small_cnn", width=8),
        threat_model=dict(name="linf", epsilon=0.1),
        epochs=3,
        defense=dict(name="adversarial_training", epsilon=0.1, attack=dict(name="pgd", num_steps=2)),
    ),
    search_attack=dict(name="pgd", num_steps=2),
    objective=Maximize("validation/pgd_2/adversarial_accuracy"),
    sampler="random",
    budget=Budget(trials=2),
    concurrency=1,
)
'''


RAY = """
import sys

import numpy as np
import ray
from ray.cluster_utils import Cluster

store = {"object_store_memory": 80 * 2**20, "object_spilling_directory": sys.argv[1]}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **store})
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
print(cluster.address, flush=True)
sys.stdin.readline()
held = []
for size in (2**23, 2**20, 2**17, 2**14):
    try:
        while True:
            held.append(ray.put(np.zeros(size, dtype=np.uint8)))
    except ray.exceptions.RayError:
        continue
print("full", flush=True)
sys.stdin.readline()
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_an_object_store_that_fills_halts_the_sweep_and_no_trial_fails(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray carries small messages, which are all that a sweep sends, past its store: here none is small."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_max_direct_call_object_size", "1000")  # bytes
    (tmp_path / "tiny.py").write_text(FILE.replace("epochs=3", "epochs=100_000"))
    study = tmp_path / "studies" / "tiny"
    cluster = [sys.executable, "-c", RAY, str(small)]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(cluster, stdin=pipe, stdout=pipe, stderr=nothing, text=True) as ray:
        assert ray.stdin is not None and ray.stdout is not None
        running = command("run", "tiny.py", "--address", ray.stdout.readline().strip(), folder=tmp_path)
        paused(running)
        fill(small)
        ray.stdin.write("fill\n")
        ray.stdin.flush()
        running.send_signal(signal.SIGCONT)
        said, errors = running.communicate()
        ray.stdin.close()
    assert running.returncode == 2, said + errors
    *_, last = errors.splitlines()
    assert last.startswith("error: Ray's object store is full, and so is the disk that it spills to"), errors
    assert events(study, "ended", "lost") == [] and events(study)[-1]["reason"] == "interrupted"
    with opened(StudyFolder(study)) as search:
        resumed = search.ask()
        assert resumed is not None and resumed.number == 0 and resumed.reported >= 1


def command(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    """One that stands still after a trial's first epoch."""
    line = [*pausing("told[-1]['event'] == 'reported'"), *arguments]
    return subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_on_the_command_line_with_ray_and_mlflow_on_the_disk_that_fills(small: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(FILE)
    study = small / "tiny"
    running = command("run", "tiny.py", "--studies", str(small), folder=tmp_path)
    paused(running)
    fill(small)
    running.send_signal(signal.SIGCONT)
    said, errors = running.communicate()
    assert running.returncode == 2, said + errors
    assert errors.startswith("error: ") and "sweep resume" in errors and "Traceback" not in said + errors
    assert events(study, "ended") == []
    (small / "ballast").unlink()
    assert "2 trials: 2 completed" in sweep("resume", "tiny", "--in-process", "--studies", str(small), folder=tmp_path)
    assert [event["end"] for event in events(study, "ended")] == ["completed"] * 2
    told = [(event["trial"], event["epoch"]) for event in events(study, "reported")]
    assert len(told) == len(set(told)) == 6


def test_ray_is_not_started_where_its_folder_is_full(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweep.orchestration import ray_tune

    fill(small, leaving=5 * 2**20)
    monkeypatch.setenv("RAY_TMPDIR", str(small))
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # which it would leave to other tests
    said = rf"Ray's folder, {small}: 5.0 MB are free .*RAY_TMPDIR names another folder"
    with opened(StudyFolder.create(tmp_path, STUDY)) as search, pytest.raises(DiskFullError, match=said):
        ray_tune.run(search)
    assert [event["event"] for event in events(tmp_path / "tiny")] == ["session", "closed"]
