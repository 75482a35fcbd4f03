"""A mirror sends every event of a journal, in order, whatever happens to it or to where it sends them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import SweepError
from sweep.tracking.journal import FILE_NAME, Journal
from sweep.tracking.mirror import CURSOR, Destination, JournalMirror, RefusalError


class Shelf:
    """A destination in memory. `fault` may raise, or block, before an event is taken."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.connections = 0
        self.is_new = False
        self.fault: Callable[[int], None] = lambda number: None

    def send(self, event: dict[str, Any]) -> None:
        self.fault(event["trial"])
        self.taken.append(event["trial"])


class ShelfMirror(JournalMirror):
    poll_interval = 0.01

    def __init__(self, folder: Path, shelf: Shelf, address: str = "shelf") -> None:
        super().__init__(folder, address)
        self.shelf = shelf

    def _connect(self) -> Destination:
        self.shelf.connections += 1
        return self.shelf

    def _explain(self, error: Exception) -> str:
        return f"{type(error).__name__}: {error}"


def journal_of(folder: Path, trials: range) -> None:
    journal = Journal(folder / FILE_NAME)
    for trial in trials:
        journal.append("reported", trial=trial)
    journal.close()


def raise_at(trial: int, error: Exception) -> Callable[[int], None]:
    def fault(number: int) -> None:
        if number == trial:
            raise error

    return fault


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.005)


def test_everything_is_sent_once_and_in_order(tmp_path: Path) -> None:
    journal_of(tmp_path, range(250))  # more than is read at once
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    assert mirror.sync() == 250
    assert mirror.sync() == 0
    journal_of(tmp_path, range(250, 260))
    assert ShelfMirror(tmp_path, shelf).sync() == 10
    assert shelf.taken == list(range(260))


def test_nothing_is_sent_or_reached_for_an_empty_or_absent_journal(tmp_path: Path) -> None:
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    assert mirror.sync() == 0
    Journal(tmp_path / FILE_NAME).close()
    assert mirror.sync() == 0
    assert shelf.connections == 0


def test_after_a_failure_it_goes_on_with_the_event_that_failed(tmp_path: Path) -> None:
    journal_of(tmp_path, range(10))
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    shelf.fault = raise_at(4, OSError("away"))
    with pytest.raises(SweepError, match="OSError: away"):
        mirror.sync()
    assert mirror.last_error == "OSError: away"
    shelf.fault = lambda number: None
    assert ShelfMirror(tmp_path, shelf).sync() == 6
    assert mirror.sync() == 0
    assert mirror.last_error is None
    assert shelf.taken == list(range(10))


def test_a_refused_event_is_counted_and_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    journal_of(tmp_path, range(5))
    shelf = Shelf()
    shelf.fault = raise_at(2, RefusalError("no such name"))
    mirror = ShelfMirror(tmp_path, shelf)
    assert mirror.sync() == 5
    assert (mirror.refused, mirror.last_refusal) == (1, "no such name")
    assert shelf.taken == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "cursor", ["", "[]", '{"cursor": "x", "address": "shelf"}', '{"cursor": 20, "address": "shelf"}', "beyond"]
)
def test_a_cursor_that_cannot_be_right_starts_again(tmp_path: Path, cursor: str) -> None:
    journal_of(tmp_path, range(3))
    size = (tmp_path / FILE_NAME).stat().st_size
    beyond = json.dumps({"cursor": size + 1, "address": "shelf"})
    (tmp_path / CURSOR).write_text(beyond if cursor == "beyond" else cursor)
    shelf = Shelf()
    assert ShelfMirror(tmp_path, shelf).sync() == 3
    assert json.loads((tmp_path / CURSOR).read_text()) == {"cursor": size, "address": "shelf"}


def test_another_destination_gets_everything(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    assert ShelfMirror(tmp_path, Shelf()).sync() == 3
    assert ShelfMirror(tmp_path, Shelf(), address="another").sync() == 3


def test_a_destination_that_lost_everything_gets_everything(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    assert ShelfMirror(tmp_path, Shelf()).sync() == 3
    journal_of(tmp_path, range(3, 5))
    emptied = Shelf()
    emptied.is_new = True
    emptied.fault = raise_at(0, OSError("away"))
    with pytest.raises(SweepError):
        ShelfMirror(tmp_path, emptied).sync()
    emptied.fault = lambda number: None
    emptied.is_new = False  # it may have made something before it failed
    assert ShelfMirror(tmp_path, emptied).sync() == 5
    assert emptied.taken == [0, 1, 2, 3, 4]


def test_two_senders_take_turns(tmp_path: Path) -> None:
    journal_of(tmp_path, range(400))
    shelf = Shelf()
    mirrors = [ShelfMirror(tmp_path, shelf) for _ in range(2)]
    threads = [threading.Thread(target=mirror.sync) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shelf.taken == list(range(400))


def test_it_connects_again_when_another_process_has_sent(tmp_path: Path) -> None:
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    for trial in range(3):
        journal_of(tmp_path, range(trial, trial + 1))
        (mirror if trial != 1 else ShelfMirror(tmp_path, shelf)).sync()
    assert shelf.taken == [0, 1, 2]
    assert shelf.connections == 3


def test_the_thread_follows_a_journal_that_begins_later(tmp_path: Path) -> None:
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    mirror.start()
    mirror.start()  # once is enough
    journal_of(tmp_path, range(3))
    until(lambda: shelf.taken == [0, 1, 2])
    journal_of(tmp_path, range(3, 300))
    assert mirror.stop(timeout=10) == 0
    assert shelf.taken == list(range(300))


def test_the_thread_outlives_every_error_and_recovers(tmp_path: Path) -> None:
    journal_of(tmp_path, range(10))
    shelf = Shelf()
    shelf.fault = raise_at(5, KeyError("whatever"))
    mirror = ShelfMirror(tmp_path, shelf)
    mirror.start()
    until(lambda: mirror.last_error == "KeyError: 'whatever'" and shelf.connections > 2)
    assert shelf.taken == [0, 1, 2, 3, 4]
    shelf.fault = lambda number: None
    until(lambda: shelf.taken == list(range(10)))
    assert mirror.stop(timeout=5) == 0
    assert mirror.last_error is None


def test_waiting_doubles_up_to_a_minute(tmp_path: Path) -> None:
    class Recorded(ShelfMirror):
        poll_interval = 1.0
        waits: tuple[float, ...] = ()

        def _wait(self, seconds: float) -> None:
            self.waits = (*self.waits, seconds)
            self._deadline = -1.0 if len(self.waits) == 1030 else self._deadline

    journal_of(tmp_path, range(1))
    shelf = Shelf()
    shelf.fault = raise_at(0, OSError("away"))
    mirror = Recorded(tmp_path, shelf)
    mirror.start()
    until(lambda: len(mirror.waits) == 1030)
    assert mirror.waits[:7] == (2, 4, 8, 16, 32, 60, 60)
    assert set(mirror.waits[7:]) == {60}


def test_stopping_waits_no_longer_than_it_was_told(tmp_path: Path) -> None:
    journal_of(tmp_path, range(10))
    shelf, release = Shelf(), threading.Event()
    shelf.fault = lambda number: None if number < 3 else (release.wait(20), None)[1]
    mirror = ShelfMirror(tmp_path, shelf)
    mirror.start()
    until(lambda: len(shelf.taken) == 3)
    begin = time.monotonic()
    assert mirror.stop(timeout=0.2) > 0
    assert time.monotonic() - begin < 1
    release.set()
    assert ShelfMirror(tmp_path, shelf).sync() == 6  # the one in hand when the time was up went out after all
    assert shelf.taken == list(range(10))


def test_stopping_tries_until_its_time_is_up(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    size = (tmp_path / FILE_NAME).stat().st_size
    shelf = Shelf()
    shelf.fault = raise_at(0, OSError("away"))
    mirror = ShelfMirror(tmp_path, shelf)
    assert mirror.stop(timeout=0) == size  # never started: all of it is unsent
    mirror.start()
    timer = threading.Timer(0.3, lambda: setattr(shelf, "fault", lambda number: None))
    timer.start()
    assert mirror.stop(timeout=10) == 0
    timer.join()
    assert shelf.taken == [0, 1, 2]


def test_a_damaged_journal_is_reported_in_its_own_words(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'"trial":1', b'"trial":7'))
    mirror = ShelfMirror(tmp_path, Shelf())
    with pytest.raises(SweepError, match="line 2: does not match its checksum"):
        mirror.sync()
    assert mirror.shelf.taken == [0]
