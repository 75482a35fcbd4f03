"""A mirror sends every event of a journal, in order, whatever happens to it or to where it sends them."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.errors import SweepError
from sweep.tracking.journal import FILE_NAME, Journal
from sweep.tracking.mirror import _LOCK as LOCK
from sweep.tracking.mirror import STATE, Destination, JournalMirror, mirrored

PATIENCE = 120.0  # seconds for anything that a busy machine may take its time over


class Shelf:
    """A destination in memory. `fault` may raise, or block, before an event is taken; some it refuses."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.connections = 0
        self.is_new = False
        self.refuses: set[int] = set()
        self.fault: Callable[[int], None] = lambda number: None

    def send(self, events: Sequence[dict[str, Any]]) -> list[str]:
        refusals = []
        for event in events:
            self.fault(event["trial"])
            if event["trial"] in self.refuses:
                refusals.append(f"no {event['trial']} here")
            else:
                self.taken.append(event["trial"])
        return refusals


class ShelfMirror(JournalMirror):
    poll_interval, rest = 0.01, 0.0  # a machine that stood still would seem to have worked

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


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.005)


def test_everything_is_sent_once_and_in_order(tmp_path: Path) -> None:
    journal_of(tmp_path, range(450))  # more than is read at once
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    assert mirror.sync() == 450
    assert mirror.sync() == 0
    journal_of(tmp_path, range(450, 460))
    assert ShelfMirror(tmp_path, shelf).sync() == 10
    assert shelf.taken == list(range(460))


def test_nothing_is_sent_or_reached_for_an_empty_or_absent_journal(tmp_path: Path) -> None:
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    assert mirror.sync() == 0
    Journal(tmp_path / FILE_NAME).close()
    assert mirror.sync() == 0
    assert shelf.connections == 0


def test_after_a_failure_what_was_not_acknowledged_is_sent_again(tmp_path: Path) -> None:
    journal_of(tmp_path, range(10))
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    shelf.fault = raise_at(4, OSError("away"))
    with pytest.raises(SweepError, match="OSError: away"):
        mirror.sync()
    assert mirror.last_error == "OSError: away"
    shelf.fault = lambda number: None
    assert ShelfMirror(tmp_path, shelf).sync() == 10
    assert mirror.sync() == 0
    assert mirror.last_error is None
    assert shelf.taken == [*range(4), *range(10)]


def test_a_refused_event_is_counted_and_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    journal_of(tmp_path, range(5))
    shelf = Shelf()
    shelf.refuses = {2}
    mirror = ShelfMirror(tmp_path, shelf)
    assert mirror.sync() == 5
    assert (mirror.refused, mirror.last_refusal) == (1, "no 2 here")
    assert shelf.taken == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "[]",
        '{"cursors": {"shelf": "x"}, "address": "shelf"}',
        '{"cursors": {"shelf": 20}, "address": "shelf"}',
        "beyond",
    ],
)
def test_a_cursor_that_cannot_be_right_starts_again(tmp_path: Path, cursor: str) -> None:
    journal_of(tmp_path, range(3))
    size = (tmp_path / FILE_NAME).stat().st_size
    beyond = json.dumps({"cursors": {"shelf": size + 1}, "address": "shelf"})
    (tmp_path / STATE).write_text(beyond if cursor == "beyond" else cursor)
    shelf = Shelf()
    assert ShelfMirror(tmp_path, shelf).sync() == 3
    assert mirrored(tmp_path) == ("shelf", {"shelf": size})


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


def test_two_destinations_do_not_disturb_each_other(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    own, other = Shelf(), Shelf()
    mirror = ShelfMirror(tmp_path, own, "own")
    mirror.start()
    until(lambda: own.taken == [0, 1, 2])
    assert ShelfMirror(tmp_path, other, "other").sync() == 3
    journal_of(tmp_path, range(3, 5))
    assert ShelfMirror(tmp_path, other, "other").sync() == 2
    assert mirror.stop(timeout=PATIENCE) == 0
    assert own.taken == other.taken == [0, 1, 2, 3, 4]
    size = (tmp_path / FILE_NAME).stat().st_size
    assert mirrored(tmp_path) == ("own", {"own": size, "other": size})


def test_everything_can_be_sent_again(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    shelf = Shelf()
    mirror = ShelfMirror(tmp_path, shelf)
    assert (mirror.sync(), mirror.sync(again=True), mirror.sync()) == (3, 3, 0)
    assert shelf.taken == [0, 1, 2, 0, 1, 2]


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
    assert mirror.stop(timeout=PATIENCE) == 0
    assert shelf.taken == list(range(300))


def test_the_thread_outlives_every_error_and_recovers(tmp_path: Path) -> None:
    journal_of(tmp_path, range(10))
    shelf = Shelf()
    shelf.fault = raise_at(5, KeyError("whatever"))
    mirror = ShelfMirror(tmp_path, shelf)
    mirror.start()
    until(lambda: mirror.last_error == "KeyError: 'whatever'" and shelf.connections > 2)
    assert set(shelf.taken) == {0, 1, 2, 3, 4}
    shelf.fault = lambda number: None
    until(lambda: shelf.taken[-10:] == list(range(10)))
    assert mirror.stop(timeout=PATIENCE) == 0
    assert mirror.last_error is None


class Impatient(threading.Event):
    """An event that is not waited for, and remembers how long it should have been."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        if len(self.waits) == 1030:
            self.set()
        return self.is_set()


@pytest.mark.parametrize("known", [None, "away"])
def test_waiting_doubles_up_to_a_minute(known: str | None, tmp_path: Path) -> None:
    journal_of(tmp_path, range(1))
    shelf = Shelf()
    shelf.fault = raise_at(0, OSError("away"))
    mirror = ShelfMirror(tmp_path, shelf)
    said: list[str] = []
    mirror.poll_interval, mirror.say, mirror.last_error = 1.0, said.append, known
    mirror._closing = impatient = Impatient()
    mirror.start()
    until(impatient.is_set)
    mirror.stop(timeout=0)
    assert impatient.waits[:7] == ([4, 8, 16, 32, 60, 60, 60] if known else [2, 4, 8, 16, 32, 60, 60])
    assert set(impatient.waits[7:]) == {60}
    told = "tracking is behind: OSError: away; the sweep goes on, and what is missing is sent later"
    assert said == ([] if known else [told]), "what is known is not said again"


def test_it_rests_400_times_as_long_as_it_worked_unless_the_sweep_runs_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal_of(tmp_path, range(1))
    now = 0.0

    def work(number: int) -> None:
        nonlocal now
        now += 0.125 if number == 0 else 0

    clock = SimpleNamespace(monotonic=lambda: now, sleep=time.sleep)
    monkeypatch.setattr("sweep.tracking.mirror.time", clock)
    shelf = Shelf()
    shelf.fault = work
    mirror = ShelfMirror(tmp_path, shelf)
    mirror.rest = JournalMirror.rest
    mirror.start()
    until(lambda: shelf.taken == [0])
    journal_of(tmp_path, range(1, 200))
    now += 12.0
    time.sleep(0.1)
    assert shelf.taken == [0]  # for half a second more
    journal_of(tmp_path, range(200, 201))
    until(lambda: shelf.taken == list(range(201)))
    assert mirror.stop(timeout=PATIENCE) == 0


def test_after_an_outage_it_looks_once_more_at_what_is_there(tmp_path: Path) -> None:
    """A request that was given up may have been carried out after the mirror looked."""
    journal_of(tmp_path, range(3))
    shelf = Shelf()
    shelf.fault = raise_at(1, OSError("away"))
    mirror = ShelfMirror(tmp_path, shelf)
    mirror.start()
    until(lambda: mirror.last_error is not None)
    connections: list[int] = []
    shelf.fault = lambda number: connections.append(shelf.connections)
    assert mirror.stop(timeout=PATIENCE) == 0
    assert shelf.connections == connections[-1] + 1


def test_it_never_connects_while_another_process_sends(tmp_path: Path) -> None:
    """What a destination puts right when it is connected to is somebody's who is sending at that moment."""
    journal_of(tmp_path, range(3))
    shelf = Shelf()
    shelf.fault = raise_at(1, OSError("away"))
    mirror = AloneMirror(tmp_path, shelf)
    mirror.start()
    until(lambda: mirror.last_error is not None)
    shelf.fault = lambda number: None
    assert mirror.stop(timeout=PATIENCE) == 0
    assert shelf.connections >= 3 and mirror.accompanied == 0


class AloneMirror(ShelfMirror):
    """Counts the connections during which another sender would not have had to wait."""

    accompanied = 0

    def _connect(self) -> Destination:
        with (self.folder / LOCK).open("w") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.accompanied += 1
        return super()._connect()


def test_what_is_journaled_while_it_looks_for_the_last_time_is_sent(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    shelf = Shelf()
    mirror = ClosedMirror(tmp_path, shelf)
    mirror.start()
    until(mirror._closing.is_set)
    assert mirror.stop(timeout=PATIENCE) == 0
    assert shelf.taken == [0, 1, 2, 3]


class ClosedMirror(ShelfMirror):
    """Is told to end, just after it found nothing more to send and just after the journal's last event."""

    def _send_some(self, **options: bool) -> int:
        sent = super()._send_some(**options)
        if not sent and not self._closing.is_set():
            journal_of(self.folder, range(3, 4))
            self._closing.set()
        return sent


def test_stopping_waits_no_longer_than_it_was_told(tmp_path: Path) -> None:
    journal_of(tmp_path, range(10))
    shelf, release = Shelf(), threading.Event()
    shelf.fault = lambda number: None if number < 3 else (release.wait(2 * PATIENCE), None)[1]
    mirror = ShelfMirror(tmp_path, shelf)
    mirror.start()
    until(lambda: len(shelf.taken) == 3)
    begin = time.monotonic()
    assert mirror.stop(timeout=0.2) == 10
    assert time.monotonic() - begin < PATIENCE  # and not what the shelf takes
    release.set()
    assert ShelfMirror(tmp_path, shelf).sync() == 0  # what was in hand when the time was up went out after all
    assert shelf.taken == list(range(10))


def test_one_whose_time_was_up_before_it_could_try_still_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal_of(tmp_path, range(1))
    now, shelf = 0.0, Shelf()
    shelf.fault = raise_at(0, OSError("away"))
    mirror = ShelfMirror(tmp_path, shelf)
    alone = mirror._alone

    def late() -> Any:
        nonlocal now
        now = 2 * PATIENCE if mirror._closing.is_set() else 0.0
        return alone()

    monkeypatch.setattr("sweep.tracking.mirror.time", SimpleNamespace(monotonic=lambda: now, sleep=time.sleep))
    monkeypatch.setattr(mirror, "_alone", late)
    mirror.start()
    until(lambda: mirror.last_error is not None)
    assert mirror.stop(timeout=PATIENCE) == 1 and mirror.last_error == "OSError: away"


def test_stopping_tries_until_its_time_is_up(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    shelf = Shelf()
    shelf.fault = raise_at(0, OSError("away"))
    mirror = ShelfMirror(tmp_path, shelf)
    assert mirror.stop(timeout=0) == 3  # never started: all of it is unsent
    mirror.start()
    timer = threading.Timer(0.3, lambda: setattr(shelf, "fault", lambda number: None))
    timer.start()
    assert mirror.stop(timeout=PATIENCE) == 0
    timer.join()
    assert shelf.taken == [0, 1, 2]


def test_a_damaged_journal_is_reported_in_its_own_words(tmp_path: Path) -> None:
    journal_of(tmp_path, range(3))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'"trial":1', b'"trial":7'))
    mirror = ShelfMirror(tmp_path, Shelf())
    with pytest.raises(SweepError, match="line 2: does not match its checksum"):
        mirror.sync()
    assert mirror.shelf.taken == []
