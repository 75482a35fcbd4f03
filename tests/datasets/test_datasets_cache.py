from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sweep.datasets import cache
from sweep.datasets.cache import Decoded, Stored, decoded_once
from sweep.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 5), dtype=np.uint8)
DECODED: list[int] = []


def decode() -> Decoded:
    DECODED.append(1)
    return Decoded(IMAGES, np.arange(12), classes=12)


def opened(order: int | None = 0, sources: tuple[Path, ...] = ()) -> Stored:
    return decoded_once("numbers", {"size": 4}, sources, order, decode)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / "cache"))
    forget(monkeypatch)
    DECODED.clear()
    return tmp_path / "cache"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process would, remember nothing."""
    monkeypatch.setattr(cache, "_opened", {})


def test_the_source_order_is_kept_or_shuffled_with_the_labels() -> None:
    plain, shuffled = opened(order=None), opened(order=0)
    assert torch.equal(plain.images, torch.from_numpy(IMAGES)) and plain.labels.tolist() == list(range(12))
    assert sorted(shuffled.labels.tolist()) == list(range(12)) and shuffled.labels.tolist() != list(range(12))
    assert torch.equal(shuffled.images, torch.from_numpy(IMAGES)[shuffled.labels])


def test_decodes_once_in_a_process_and_once_on_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened()
    assert opened() is first
    forget(monkeypatch)
    assert torch.equal(opened().images, first.images)
    assert len(DECODED) == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_tensors_and_their_slices_lie_in_the_mapped_file(folder: Path) -> None:
    stored = opened()
    for tensor, name in ((stored.images[5:], "images.npy"), (stored.labels[5:], "labels.npy")):
        (line,) = [
            line for line in Path("/proc/self/maps").read_text().splitlines() if f"{folder}/" in line and name in line
        ]
        start, end = (int(address, 16) for address in line.split()[0].split("-"))
        assert start <= tensor.data_ptr() < end


def test_a_stray_write_does_not_reach_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    opened(order=None).images.zero_()
    forget(monkeypatch)
    assert torch.equal(opened(order=None).images, torch.from_numpy(IMAGES))


def test_a_changed_source_file_is_decoded_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")
    opened(sources=(source,))
    opened(sources=(source,))
    assert len(DECODED) == 1
    os.utime(source, ns=(1, 1))
    opened(sources=(source,))
    source.write_text("longer")
    opened(sources=(source,))
    assert len(DECODED) == 3


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "entry.json"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "absent"])
def test_a_damaged_file_is_decoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str) -> None:
    expected = opened().images.clone()
    (file,) = folder.glob(f"*/{name}")
    content = file.read_bytes()
    file.unlink()  # the mapped file itself stays whole
    if damage != "absent":
        file.write_bytes({"truncated": content[:-3], "empty": b"", "garbage": b"\x93garbage" * 100}[damage])
    forget(monkeypatch)
    assert torch.equal(opened().images, expected)
    assert len(DECODED) == 2


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_arrays_of_another_length_are_decoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    opened()
    (file,) = folder.glob(f"*/{name}")
    array = np.load(file)
    file.unlink()
    np.save(file, array[:-1])
    forget(monkeypatch)
    assert len(opened().images) == len(opened().labels) == 12
    assert len(DECODED) == 2


def test_what_a_killed_process_left_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = opened().images.clone()
    (entry,) = folder.iterdir()
    for file in entry.iterdir():
        file.unlink()
    (entry / "images.npy.partial").write_bytes(b"half an image" * 1_000)
    forget(monkeypatch)
    assert torch.equal(opened().images, expected)
    assert sorted(path.name for path in entry.iterdir()) == ["entry.json", "images.npy", "labels.npy", "lock"]


def test_a_failed_decoding_leaves_nothing_behind(folder: Path) -> None:
    def half() -> Decoded:
        def images() -> object:
            yield IMAGES[0]
            raise DataError("row 1: not an image")

        return Decoded(images(), np.arange(12), classes=12)  # type: ignore[arg-type]  # a generator of images

    with pytest.raises(DataError, match="row 1"):
        decoded_once("numbers", {"size": 4}, (), 0, half)
    assert [path.name for path in folder.glob("*/*")] == ["lock"]
    assert len(opened().labels) == 12


def test_images_of_two_shapes_are_refused() -> None:
    images = [IMAGES[0], IMAGES[1].transpose(0, 2, 1)]
    with pytest.raises(ValueError, match=r"uint8 \[3, 4, 5\], got uint8 \[3, 5, 4\]"):
        decoded_once("numbers", {}, (), None, lambda: Decoded(images, np.arange(2), classes=2))


def test_a_cache_that_cannot_be_written_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWEEP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="SWEEP_CACHE_DIR"):
        opened()


PROCESS = """
import re, sys, time
from pathlib import Path
import numpy as np
from sweep.datasets.cache import Decoded, decoded_once

def decode():
    with Path(sys.argv[1]).open("a") as file:
        file.write("decoded ")
    time.sleep(0.5)
    return Decoded(np.ones((1000, 1, 100, 200), np.uint8), np.zeros(1000, np.int64), classes=1)

print("loaded", flush=True)
sys.stdin.readline()
images = decoded_once("large", {}, (), 0, decode).images
assert int(images.sum()) == 20_000_000
print("touched", flush=True)
sys.stdin.readline()
mapped = Path("/proc/self/smaps").read_text().split("images.npy")[1]
print(*(re.search(rf"^{key}: +([0-9]+) kB", mapped, re.M)[1] for key in ("Rss", "Pss")), flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_two_processes_at_once_decode_once_and_share_one_copy(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    command = [sys.executable, "-c", PROCESS, str(marker)]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    try:
        step(processes)
        assert step(processes, go=True) == ["touched", "touched"]
        assert marker.read_text() == "decoded "
        for line in step(processes, go=True):
            resident, proportional = map(int, line.split())  # kB; a page's share is divided by those who map it
            assert resident >= 19_000
            assert proportional <= 0.6 * resident
    finally:
        for process in processes:
            process.communicate("\n")


def step(processes: list[subprocess.Popen[str]], go: bool = False) -> list[str]:
    """Let all go on, then wait for a line of each."""
    for process in processes:
        if go and process.stdin:
            process.stdin.write("\n")
            process.stdin.flush()
    return [process.stdout.readline().strip() for process in processes if process.stdout]
