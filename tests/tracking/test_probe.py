"""A tracking URI that will never do is refused before anything starts; a server that is away is not."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mirrored_study import PATIENCE, free_port

from sweep.errors import StudyError
from sweep.tracking.probe import probe

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(int(PATIENCE))
    yield
    os.environ.clear()
    os.environ.update(before)


@contextmanager
def answering(status: int, body: bytes, *, in_time: bool = True) -> Iterator[str]:
    """A web server that answers everything so, in time or when all is over; gives its address, with a password."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not in_time:
                over.wait()
            with suppress(ConnectionError):  # nobody may be waiting any more
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://ada:s3cret@127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()


REFUSED = [
    (200, b"<!doctype html><html>welcome</html>", "a web page answers, not MLflow"),
    (404, b"<html>not found</html>", "a web page answers, not MLflow"),
    (200, b"OK", "no MLflow answers there"),
    (401, b"You are not authenticated.", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    (403, b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}', "it wants another user or password"),
    (404, b'{"error_code": "ENDPOINT_NOT_FOUND", "message": "no such path"}', "no MLflow answers there"),
]


@pytest.mark.parametrize(("status", "body", "said"), REFUSED)
def test_what_is_not_mlflow_is_refused(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as uri, pytest.raises(StudyError) as caught:
        probe(uri, "digits")
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_speaks_another_language_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.recv(65536)

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(StudyError, match="no web server"):
            probe(f"http://127.0.0.1:{listener.getsockname()[1]}", "digits")


def test_a_server_that_is_away_may_come_back() -> None:
    assert "cannot be reached" in str(probe(f"http://127.0.0.1:{free_port()}", "digits"))
    assert "cannot be reached" in str(probe("http://no-such-host.invalid:5000", "digits"))
    with answering(503, b"<html>Service Unavailable</html>") as uri:
        assert "cannot be reached: too many 503 error responses" in str(probe(uri, "digits"))
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "1"
    with answering(200, b"{}", in_time=False) as uri:
        assert "does not answer" in str(probe(uri, "digits"))


def test_a_server_that_lacks_the_experiment_or_has_it_will_do() -> None:
    absent = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}'
    with answering(404, absent) as uri:
        assert probe(uri, "digits") is None


def _other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table customers (name text)")


def _half_made(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table experiments (name text)")


def _schema(revision: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("create table experiments (name text)")
            database.execute("create table alembic_version (version_num text)")
            database.execute("insert into alembic_version values (?)", (revision,))

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_other, "a database of something else (it holds customers)"),
        (_half_made, "half made: let the process that makes them end, or name a new one"),
        (lambda path: path.write_bytes(b"not a database, whatever it is" * 100), "cannot be used as a database"),
        (lambda path: path.mkdir(), "cannot be used as a database"),
        (_schema("ffffffffffff"), "made by a newer MLflow than"),
        (_schema("0c779009ac13"), "`mlflow db upgrade sqlite:///"),
    ],
)
def test_a_database_that_is_not_ours_is_refused_and_left_alone(
    make: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.tracking.probe._STILL_SECONDS", 0.1)
    path = tmp_path / "store.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StudyError) as caught:
        probe(f"sqlite:///{path}", "digits")
    assert said in str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_database_that_is_absent_or_empty_is_made_later(tmp_path: Path) -> None:
    assert probe(f"sqlite:///{tmp_path}/folder/new.db", "digits") is None
    (tmp_path / "empty.db").touch()
    assert probe(f"sqlite:///{tmp_path}/empty.db", "digits") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db"]


def test_a_database_whose_driver_is_not_installed_is_refused() -> None:
    with pytest.raises(StudyError, match="cannot be opened from here") as caught:
        probe("mssql+pymssql://ada:s3cret@127.0.0.1/db", "digits")
    assert "s3cret" not in str(caught.value)


MAKER = """
import sys
from mlflow import MlflowClient
from mlflow.store.db import utils


def upgrade(engine, go_on=utils._upgrade_db):
    print("half made", flush=True)
    sys.stdin.readline()
    go_on(engine)


utils._upgrade_db = upgrade
MlflowClient(sys.argv[1]).search_experiments()
"""


def test_a_database_that_another_process_is_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow writes the version of its tables last."""
    monkeypatch.setattr("sweep.tracking.probe._STILL_SECONDS", 30.0)  # a busy machine makes nothing for a while
    path, pipe = tmp_path / "store.db", subprocess.PIPE
    command = [sys.executable, "-c", MAKER, f"sqlite:///{path}"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as maker:
        assert maker.stdin is not None and maker.stdout is not None
        assert maker.stdout.readline() == "half made\n"
        assert _holds(path, "experiments") and not _holds(path, "model_versions")
        maker.stdin.write("\n")
        maker.stdin.flush()
        assert probe(f"sqlite:///{path}", "digits") is None
        assert _holds(path, "model_versions")


def _holds(path: Path, table: str) -> bool:
    if not path.exists():
        return False
    with closing(sqlite3.connect(path)) as database:
        return bool(database.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone())
