"""Studies in a store, S3's stand-in or a file system: a machine that has nothing goes on with what another left."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from processes import paused, pausing
from test_commands import TINY, stdout, sweep
from tiny_study import asked, complete, events, figures, report, searching, tiny

from sweep.analysis.opening import begin, select
from sweep.errors import StorageError, StudyError
from sweep.orchestration import in_process, keeper, lease, storage
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.lease import Lease
from sweep.orchestration.machine import look
from sweep.orchestration.search import opened
from sweep.orchestration.storage import Storage, below
from sweep.orchestration.worker import Assignment, messages
from sweep.tracking.journal import Journal


class Store:
    """An S3 in this process, which can be away for a while and then has what it had."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()
        make = f"{self.uri('bucket')}&allow_bucket_creation=true"
        from pyarrow import fs

        fs.FileSystem.from_uri(make)[0].create_dir("bucket")

    def uri(self, path: str) -> str:
        return f"s3://{path}?endpoint_override=http://127.0.0.1:{self._port}&region=us-east-1"

    def leave(self) -> None:
        self._server.stop()
        if self._server._server:
            self._server._server.server_close()  # who calls is refused, rather than left waiting

    def come_back(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()


@pytest.fixture(scope="module")
def s3() -> Iterator[Store]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        store = Store()
        yield store
        store.leave()


@pytest.fixture(params=["s3", "file"])
def root(request: pytest.FixtureRequest, s3: Store, tmp_path: Path) -> str:
    """A folder of a store, with nothing in it."""
    return s3.uri(f"bucket/{tmp_path.name}") if request.param == "s3" else f"file://{tmp_path}/nfs"


def test_a_file_is_written_read_listed_and_deleted(root: str, tmp_path: Path) -> None:
    folder = Storage(root) / "a"
    assert folder.read("x") is None and folder.files() == {} and folder.folders() == []
    folder.delete("x")
    folder.write("b/x", b"first")
    folder.write("b/x", b"second")
    (Storage(root) / "ab").write("y", b"")
    assert folder.files() == {"b/x": 6} and folder.folders() == ["b"] and (folder / "b").read("x") == b"second"
    assert (folder / "b").fetch(tmp_path / "here") == ["x"] and (tmp_path / "here" / "x").read_bytes() == b"second"
    assert folder.name == "a" and folder.parent.uri == root and Storage((folder / "b").uri).files() == {"x": 6}
    folder.delete("b/x")
    assert folder.files() == {}
    folder.check()
    assert folder.files() == {}


def test_a_file_that_is_replaced_while_it_is_read_is_read_whole(s3: Store, tmp_path: Path) -> None:
    """Else a living owner's sign of life, which is written again and again, would at times be no sign at all."""
    folder = Storage(s3.uri(f"bucket/{tmp_path.name}"))
    folder.write("x", b"short")
    folder._files = Overtaken(folder._files, lambda: Storage(folder.uri).write("x", b"longer"))
    assert folder.read("x") == b"longer"


class Overtaken:
    """A file system where something happens when a file was first opened, and not yet read."""

    def __init__(self, files: Any, happens: Callable[[], None]) -> None:
        self._files, self._happenings = files, [happens]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def open_input_file(self, path: str) -> Any:
        file = self._files.open_input_file(path)
        while self._happenings:
            self._happenings.pop()()
        return file


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s4://bucket/path", "'s4://bucket/path' is no store: write s3://bucket/path, gs://"),
        ("bucket/path", "is no store: write s3://"),
        ("s3://", "is no store: write s3://"),
        ("s3://key:secret@bucket/path", "s3://***@bucket/path holds credentials"),
        ("s3://bucket/path?regoin=x", "Unexpected query parameter in S3 URI: 'regoin'"),
        ("file://server/folder", "Unsupported hostname"),
    ],
)
def test_a_uri_of_no_use_is_refused_before_anything_starts(uri: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    printed = sweep("run", "tiny.py", "--storage", uri, folder=tmp_path, code=2)
    assert printed.startswith("error: ") and said in printed and printed.count("\n") == 1 and "secret" not in printed
    assert not (tmp_path / "studies").exists()


def test_a_store_that_refuses_says_what_to_mend(s3: Store, tmp_path: Path) -> None:
    import requests

    with pytest.raises(StorageError, match=r"^s3://absent/x\?\S+: there is no such bucket: make it, or mend the URI$"):
        Storage(s3.uri("absent/x")).check()
    control = s3.uri("").partition("endpoint_override=")[2].partition("&")[0] + "/moto-api/reset-auth"
    requests.post(control, data="0", timeout=10)
    try:
        (tmp_path / "tiny.py").write_text(TINY)
        printed = sweep("run", "tiny.py", "--storage", s3.uri("bucket/x"), folder=tmp_path, code=2)
        assert "access is denied; credentials are read, on every machine by itself, from AWS_ACCESS" in printed
        *_, last = messages(Assignment(7, {}, s3.uri("bucket/x/trials/0007"), 0))
        assert "access is denied" in last["halted"]  # the sweep halts: no trial is to blame
    finally:
        requests.post(control, data="inf", timeout=10)
    assert not (tmp_path / "studies").exists()


def test_doctor_looks_whether_every_machine_reaches_the_same_store(root: str, s3: Store, tmp_path: Path) -> None:
    assert f"{root}, which {os.uname().nodename} writes to, can be written here" in sweep(
        "doctor", "--storage", root, "--json", folder=tmp_path
    )
    assert Storage(root).files() == {} and list(tmp_path.iterdir()) in ([], [tmp_path / "nfs"])
    found, remedy = look(below(root, "doctor-that-is-gone"), None)["checks"]["storage"]
    assert found == f"{root} is not the store that the driver writes to" and "each with credentials" in str(remedy)
    absent = sweep("doctor", "--storage", s3.uri("absent/x"), "--json", folder=tmp_path, code=1)
    assert "there is no such bucket" in absent and "each with credentials" in absent


@pytest.mark.slow
def test_a_machine_that_has_nothing_goes_on_with_what_a_lost_one_left(s3: Store, tmp_path: Path) -> None:
    """By URI, with every command: nothing is lost, and no epoch told twice."""
    uri, first, second = s3.uri(f"bucket/{tmp_path.name}"), tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (first / "tiny.py").write_text(TINY.replace("epochs=2", "epochs=4"))
    middle = "[e['event'] for e in told].count('reported') == 6"  # of the second trial
    command = [*pausing(middle), "run", "tiny.py", "--in-process", "--storage", uri]
    there, study = Storage(uri) / "tiny", str((Storage(uri) / "tiny").uri)
    with subprocess.Popen(command, cwd=first, stdout=subprocess.DEVNULL) as lost:
        try:
            paused(lost)
        finally:
            lost.kill()

    assert not (first / "studies" / "tiny" / "trials").exists() and "trials/0001/checkpoint.pt" in there.files()

    assert "3 trials: 3 completed" in (said := sweep("resume", study, "--in-process", folder=second))
    assert f"took over the lock of process {lost.pid}" in said and "1 completed, 1 in flight" in said
    account = figures(second / "studies" / "tiny")
    assert [told["end"] for told in account.values()] == ["completed"] * 3
    assert all(sorted(told["reports"]) == [1, 2, 3, 4] for told in account.values())
    assert not [name for name in there.files() if name.endswith("checkpoint.pt") or name == lease.NAME]

    third = tmp_path / "third"
    third.mkdir()
    assert "3 trials: 3 completed" in sweep("status", study, folder=third)
    assert "trial " in sweep("export", study, "--best", "--to", "best", folder=third)
    assert (third / "best" / "model.safetensors").exists() and (third / "best" / "metrics.json").exists()
    assert "did you mean 'tiny'?" in sweep("status", study.replace("tiny", "tinny"), folder=third, code=2)
    assert "already holds a study" in sweep("run", "first/tiny.py", "--storage", uri, folder=tmp_path, code=2)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners of a study that live and die within seconds."""
    monkeypatch.setattr(keeper, "BEAT", 0.1)
    monkeypatch.setattr(keeper, "GROWTH_EVERY", 0.05)
    monkeypatch.setattr(lease, "PATIENCE", 1.0)
    monkeypatch.setattr(lease, "SETTLE", 0.05)
    for module in (storage, keeper):
        monkeypatch.setattr(module, "FIRST_WAIT", 0.1)
        monkeypatch.setattr(module, "LONGEST_WAIT", 0.5)


def begun(path: Path, root: str, **changes: Any) -> StudyFolder:
    return StudyFolder.create(path, tiny(**changes), storage=Storage(root))


def test_a_confirmation_is_found_with_the_study_that_it_confirms(hasty: None, root: str, tmp_path: Path) -> None:
    """And that one with it: without, a trial that was refuted there would be believed."""
    folder = begun(tmp_path / "a", root)
    with opened(folder) as search:
        complete(search, 0.5)
    selection = select(folder, top=1, seeds=1, attacks=["fgsm"], baselines=False)
    confirming = begin(folder, selection, again=False)
    assert confirming.storage is not None and confirming.storage.uri == below(root, "tiny-confirmation")
    there = StudyFolder.find(tmp_path / "b", confirming.storage.uri)
    assert there.study().confirms == selection and len(StudyFolder(tmp_path / "b" / "tiny").ledger().confirmations) == 1
    StudyFolder.find(tmp_path / "c", below(root, "tiny"))
    assert StudyFolder(tmp_path / "c" / "tiny-confirmation").study() == there.study()


def test_the_studies_of_a_store_are_listed(hasty: None, root: str, tmp_path: Path) -> None:
    assert f"no studies in {root} yet" in " ".join(sweep("list", root, folder=tmp_path).split())
    for name in ("first", "second"):
        with opened(begun(tmp_path / "a", root, name=name)) as search:
            complete(search, 0.5 if name == "first" else 0.6)
    (Storage(root) / "no-study").write("x", b"")
    (Storage(root) / "damaged").write("study.json", b"{")
    told, complaint = stdout("list", root, "--json", folder=tmp_path)
    assert [(row["name"], row["state"], row["best"]["value"]) for row in json.loads(told)] == [
        ("first", "interrupted", 0.5),
        ("second", "interrupted", 0.6),
    ]
    assert "damaged/study.json cannot be read" in complaint and "no-study" not in complaint
    assert sorted(path.name for path in (tmp_path / "studies").iterdir()) == ["damaged", "first", "second"]


def test_of_two_machines_one_runs_a_study(
    hasty: None, monkeypatch: pytest.MonkeyPatch, root: str, tmp_path: Path
) -> None:
    """The other is refused while that one lives, and takes over when it gives no sign of life."""
    folder, here = begun(tmp_path / "a", root), f"process {os.getpid()} on {os.uname().nodename}"
    other = StudyFolder.find(tmp_path / "b", (Storage(root) / "tiny").uri)
    monkeypatch.setattr(lease, "PATIENCE", 60.0)  # seconds: a crowded machine may keep the owner's thread for long
    with opened(folder) as search:
        complete(search, 0.5)
        assert other.runner() == here
        with pytest.raises(StudyError, match=rf"tiny\S* is being run by {here}; wait for it or stop it"):
            opened(other).__enter__()
    assert other.runner() is None
    assert folder.storage is not None
    Lease(folder.storage).take()  # by one that is then silent
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    said: list[str] = []
    with opened(other, say=said.append) as search:
        assert search.restored["completed"] == 1 and said == [f"took over the lock of {here}, which is gone"]


def test_one_that_was_cut_off_stops_and_leaves_the_other_alone(hasty: None, root: str, tmp_path: Path) -> None:
    folder = begun(tmp_path / "a", root)
    there = folder.storage
    assert there is not None
    another = {"host": "elsewhere", "pid": 1, "place": "", "token": "t", "beats": 1, "time": 0}
    taken = pytest.raises(StorageError, match="was taken over by process 1 on elsewhere, which goes on with the study")
    with taken, opened(folder) as search:
        number = asked(search).number
        search.started(number, "here", 1)
        assert search.folder.keeper is not None
        while search.folder.keeper.lost is None:
            there.write(lease.NAME, json.dumps(another).encode())  # again where a renewal was just under way
            time.sleep(0.1)
        report(search, number, 1, 0.5)  # which goes nowhere
        assert search.ask() is None and search.interrupted
    assert json.loads(there.read(lease.NAME) or b"")["host"] == "elsewhere"
    held = keeper.RemoteJournal(there).read()
    assert b'"reported"' not in held and folder.journal.read_bytes().startswith(held)
    (there / "journal").write("000000000000000.log", held + line(tmp_path, "reopened", trial=0))  # the other goes on
    with pytest.raises(StudyError, match=r"went apart: .* move \S+a/tiny away"):
        StudyFolder.find(tmp_path / "a", "tiny")


def line(folder: Path, event: str, **fields: Any) -> bytes:
    """One more line of a journal."""
    with closing(Journal(folder / "line.log")) as journal:
        journal.append(event, **fields)
    return (folder / "line.log").read_bytes()


def test_a_long_journal_lies_in_pieces_and_comes_back_whole(
    monkeypatch: pytest.MonkeyPatch, root: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(keeper, "PIECE", 1500)
    folder = begun(tmp_path / "a", root, budget={"trials": 8})
    for _ in range(2):
        with opened(folder) as search:
            for _ in range(4):
                complete(search, 0.5, 0.6)
    assert folder.storage is not None
    pieces = (folder.storage / "journal").files()
    assert len(pieces) > 3 and all(size < 5000 for size in pieces.values())
    brought = StudyFolder.find(tmp_path / "b", folder.storage.uri)
    assert brought.journal.read_bytes() == folder.journal.read_bytes()
    folder.extend(trials=1)
    assert StudyFolder.find(tmp_path / "b", "tiny").study().budget.trials == 9
    (folder.storage / "journal").delete(sorted(pieces)[1])
    with pytest.raises(StudyError, match=r"a piece before \d+.log is missing"):
        StudyFolder.find(tmp_path / "c", folder.storage.uri)


def test_a_store_that_is_away_is_waited_for(hasty: None, s3: Store, tmp_path: Path) -> None:
    """No trial begins, one that runs waits, and nothing is lost or blamed when it is back."""
    said: list[str] = []
    folder = begun(tmp_path, s3.uri(f"bucket/{tmp_path.name}"))
    with opened(folder, say=said.append) as search:
        first = asked(search)
        told = messages(first)
        for _ in range(2):  # it takes the trial up, and tells of its first epoch
            search.hear(next(told))
        s3.leave()
        note = next(told)
        assert "does not answer" in note["note"] and note["note"].endswith("; the trial waits for it")
        search.hear(note)
        assert search.ask() is None and search.is_waiting and not search.interrupted
        s3.come_back()
        while (message := next(told, None)) is not None:
            search.hear(message)
        second = asked(search)
        assert second.number == 1
    ended = events(folder.path, "ended")
    assert [event["end"] for event in ended] == ["completed"] and len(events(folder.path, "reported")) == 3
    assert "no trial begins until it does" in said[0] and said[1].endswith("answers again") and len(said) == 2


def test_a_slow_store_holds_up_no_trial_for_ever(hasty: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others go on reporting meanwhile, and the store is never at the journal's end."""
    write = Storage.write

    was_asked = threading.Event()

    def slow_write(self: Storage, name: str, content: bytes) -> None:
        was_asked.wait()
        time.sleep(0.2)
        write(self, name, content)

    folder = begun(tmp_path / "a", f"file://{tmp_path}/nfs")
    with opened(folder) as search:
        first = asked(search)
        search.started(first.number, "here", 1)
        monkeypatch.setattr("sweep.orchestration.search.STORE_SECONDS", 0.05)
        monkeypatch.setattr(Storage, "write", slow_write)
        for epoch in range(1, 1000):
            report(search, first.number, epoch, 0.5)
            if (second := search.ask()) is not None:
                break
            was_asked.set()
        assert second is not None and epoch > 1
        monkeypatch.undo()


def test_a_trial_broken_off_goes_on_from_its_checkpoint_in_the_store(root: str, tmp_path: Path) -> None:
    """Epochs that it told of are not trained again: they took as many seconds as before, to the last digit."""
    assignment = asked_of(tmp_path, root, "0000")
    running = messages(assignment)
    before = [next(running), next(running), next(running)]
    del running
    after = list(messages(assignment))
    assert [message["metrics"] for message in after[1:3]] == [message["metrics"] for message in before[1:]]
    assert [message.get("epoch") for message in after] == [None, 1, 2, 3, None] and after[-1]["end"] == "completed"


def test_what_a_trial_set_aside_is_set_aside_in_the_store(root: str, tmp_path: Path) -> None:
    assignment = asked_of(tmp_path, root, "0000")
    told = messages(assignment)
    while "epoch" not in next(told):
        pass
    del told  # as when its process takes up another trial
    there = Storage(assignment.folder)
    assert there.files().keys() == {"config.json", "checkpoint.pt"}
    there.write("checkpoint.pt", b"damaged")
    said = list(messages(assignment))
    assert "the trial begins anew" in next(message["note"] for message in said if "note" in message)
    assert said[-1]["end"] == "completed" and there.read("checkpoint.pt.set-aside-1") == b"damaged"
    other = asked_of(tmp_path, root, "0000", seed=1)
    assert list(messages(other))[-1]["end"] == "completed"
    assert "0000.set-aside-1" in there.parent.folders()
    assert json.loads((there.parent / "0000.set-aside-1").read("config.json") or b"") == assignment.config
    assert not list(Path(tempfile.gettempdir()).glob(f"sweep-trial-{os.getpid()}-*"))


def asked_of(path: Path, root: str, number: str, **changes: Any) -> Assignment:
    """A trial of the tiny study, to be kept in the store."""
    with searching(path / f"plain{len(list(path.iterdir()))}", tiny(**changes)) as search:
        given = asked(search)
    return Assignment(given.number, given.config, (Storage(root) / number).uri, 0)


def test_a_sweep_without_ray_works_in_a_store_as_well(root: str, tmp_path: Path) -> None:
    folder = begun(tmp_path / "a", root, budget={"trials": 2})
    with opened(folder) as search:
        in_process.run(search)
    plain = StudyFolder.create(tmp_path / "b", tiny(budget={"trials": 2}))
    with opened(plain) as search:
        in_process.run(search)
    assert figures(folder.path) == figures(plain.path)
    assert folder.trial(0).is_dir() and (folder.trial(0) / "best.safetensors").exists()
    assert {path.name for path in folder.trial(0).iterdir()} == {path.name for path in plain.trial(0).iterdir()}
