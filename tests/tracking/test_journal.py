"""A journal survives what kills its writer, and refuses what damages it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.errors import JournalError
from sweep.tracking.journal import Journal, read

NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from(["trial", "config", "metrics", "größe"]), VALUES, max_size=4)


def written(path: Path, fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    journal = Journal(path)
    events = [journal.append("reported", **each) for each in fields]
    journal.close()
    return events


def events_of(path: Path, offset: int = 0) -> list[dict[str, Any]]:
    return [event for event, _ in read(path, offset=offset)]


def test_a_line_is_the_checksum_and_the_json(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    line = b'a44f11f2 {"event":"ended","time":1765432100.25,"trial":7,"end":"completed"}\n'
    path.write_bytes(line)
    assert events_of(path) == [{"event": "ended", "time": 1765432100.25, "trial": 7, "end": "completed"}]


def test_an_event_is_returned_as_it_will_be_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    before = time.time()
    journal = Journal(path)
    event = journal.append("asked", trial=3, betas=(0.9, 0.999), rungs={1: "a"}, text='two\nlines, "ünï" \u2028')
    journal.close()
    assert before <= event.pop("time") <= time.time()
    assert event == {
        "event": "asked",
        "trial": 3,
        "betas": [0.9, 0.999],
        "rungs": {"1": "a"},
        "text": 'two\nlines, "ünï" \u2028',
    }
    assert path.read_bytes().count(b"\n") == 1


@settings(max_examples=4, deadline=None)
@given(st.lists(FIELDS, min_size=1, max_size=4))
def test_a_journal_cut_anywhere_in_its_last_lines_keeps_every_whole_event(fields: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.log"
        events = written(path, fields)
        data = path.read_bytes()
        ends = [0, *(end for _, end in read(path))]
        for size in range(ends[-3] if len(ends) > 2 else 0, len(data) + 1):
            path.write_bytes(data[:size])
            whole = sum(end <= size for end in ends) - 1
            assert events_of(path) == events[:whole]
            journal = Journal(path)
            assert (journal.cut is None) == (size in ends)
            added = journal.append("closed", reason="test")
            journal.close()
            assert events_of(path) == [*events[:whole], added]


@settings(max_examples=60, deadline=None)
@given(st.lists(FIELDS, min_size=2, max_size=4), st.floats(0, 1), st.integers(1, 255))
def test_a_changed_byte_before_the_last_line_is_refused_with_its_line_number(
    fields: list[dict[str, Any]], place: float, change: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.log"
        events = written(path, fields)
        ends = [0, *(end for _, end in read(path))]
        # The newline before the last line is left out: without it, the two are one line, which is then the last.
        position = round(place * (ends[-2] - 2))
        content = bytearray(path.read_bytes())
        content[position] ^= change
        path.write_bytes(content)
        line = next(number for number, (start, end) in enumerate(pairwise(ends), 1) if start <= position < end)
        reader = read(path)
        assert [next(reader)[0] for _ in range(line - 1)] == events[: line - 1]
        with pytest.raises(JournalError, match=rf"journal.log, line {line}: does not match its checksum"):
            next(reader)


def test_a_last_line_that_fails_its_checksum_is_cut_off_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    events = written(path, [{"trial": 1}, {"trial": 2}])
    content = path.read_bytes()
    intact = content[: content.index(b"\n") + 1]  # lines differ in length: a time is written as short as it goes
    path.write_bytes(content[:-3] + b"7}\n")
    assert events_of(path) == events[:1]
    journal = Journal(path)
    journal.close()
    assert (
        journal.cut == f"{path}: cut off {len(content) - len(intact)} bytes of a last line that was never written whole"
    )
    assert path.read_bytes() == intact


def test_damage_before_a_torn_line_is_refused_before_anything_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    written(path, [{"trial": 1}, {"trial": 2}, {"trial": 3}])
    content = path.read_bytes().replace(b'"trial":2', b'"trial":4')[:-1]
    path.write_bytes(content)
    with pytest.raises(JournalError, match="line 2: does not match"):
        Journal(path)
    assert path.read_bytes() == content


def test_every_offset_that_reading_gives_is_a_place_to_go_on_from(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    events = written(path, [{"trial": number} for number in range(5)])
    for number, (_, offset) in enumerate(list(read(path)), 1):
        assert events_of(path, offset) == events[number:]


def test_the_line_number_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    written(path, [{"trial": number} for number in range(5)])
    offset = list(read(path))[1][1]
    path.write_bytes(path.read_bytes().replace(b'"trial":3', b'"trial":8'))
    with pytest.raises(JournalError, match="line 4: does not match"):
        events_of(path, offset)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_by_its_key_and_nothing_is_written(tmp_path: Path, number: float) -> None:
    path = tmp_path / "journal.log"
    journal = Journal(path)
    with pytest.raises(JournalError, match=r"event 'reported': 'metrics.loss.1' is not a finite number"):
        journal.append("reported", trial=1, metrics={"accuracy": 0.5, "loss": [1.0, number]})
    event = journal.append("reported", trial=1)
    journal.close()
    assert events_of(path) == [event]


def test_half_a_surrogate_pair_is_written_as_a_question_mark(tmp_path: Path) -> None:
    event = written(tmp_path / "journal.log", [{"message": os.fsdecode(b"no file \xff.png")}])[0]
    assert event["message"] == "no file ?.png"


def test_reading_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal here"):
        events_of(tmp_path / "journal.log")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "absent" / "journal.log")


def test_a_journal_that_is_deleted_while_it_is_written_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log")
    journal.append("session")
    (tmp_path / "journal.log").unlink()
    with pytest.raises(JournalError, match="was deleted while this process wrote to it"):
        journal.append("asked")


def test_a_second_writer_is_noticed(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / "journal.log"), Journal(tmp_path / "journal.log")
    event = first.append("session")
    with pytest.raises(JournalError, match="another process writes to it"):
        second.append("session")
    first.close()
    second.close()
    assert events_of(tmp_path / "journal.log") == [event]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_sentence() -> None:
    journal = Journal(Path("/dev/full"))
    with pytest.raises(JournalError, match=r"could not be written \(No space left on device\); free some space"):
        journal.append("session")
    journal.close()


LIMITED = """
import resource, sys
from pathlib import Path
from sweep.errors import JournalError
from sweep.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.append("reported", trial=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    journal.append("reported", trial=2, note="x" * 200)
except JournalError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append("reported", trial=3)
"""


def test_a_journal_interrupted_while_it_waits_for_the_disk_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C comes there, if anywhere, and the end of the session is still to be written."""

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "journal.log"
    journal = Journal(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append("reported", trial=0)
    journal.append("closed")
    journal.close()
    assert [event["event"] for event in events_of(path)] == ["reported", "closed"]


def test_a_write_that_stops_halfway_leaves_nothing_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert [event["trial"] for event in events_of(path)] == [1, 3]
    assert b"x" not in path.read_bytes()


KILLED = """
import sys
from pathlib import Path
from sweep.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(10**6):
    journal.append("reported", trial=number, note="x" * 500)
    if number == 20:
        print("going", flush=True)
"""


def test_a_killed_writer_leaves_a_journal_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    journal = Journal(path)
    journal.append("session")
    journal.close()
    events = events_of(path)
    assert len(events) > 20
    assert [event["trial"] for event in events[:-1]] == list(range(len(events) - 1))


def test_a_reader_may_follow_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    journal = Journal(path)
    writer = threading.Thread(target=lambda: [journal.append("reported", trial=number) for number in range(300)])
    writer.start()
    seen: list[int] = []
    offset = 0
    while writer.is_alive() or len(seen) < 300:
        for event, end in read(path, offset=offset):
            seen.append(event["trial"])
            offset = end
    journal.close()
    assert seen == list(range(300))


def test_the_journal_needs_none_of_the_heavy_packages() -> None:
    code = "import sys, sweep.tracking.journal; print(*{'mlflow', 'ray', 'optuna', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
