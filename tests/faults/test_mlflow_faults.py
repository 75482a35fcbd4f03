"""MLflow's server killed, frozen, or behind a password: a sweep waits for nothing, loses nothing, doubles nothing."""

from __future__ import annotations

import base64
import http.client
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mirrored_study import PATIENCE, Server, Shown, Sweep, free_port, listens, until
from mlflow import MlflowClient
from tiny_study import tiny

from sweep.cli import main
from sweep.orchestration.folder import StudyFolder
from sweep.tracking.address import local_uri
from sweep.tracking.check import Check, check
from sweep.tracking.mlflow import Mirror

pytestmark = [
    pytest.mark.slow,
    # MLflow 3.17 with SQLAlchemy 2.1: "the noload loader strategy is deprecated"
    pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


def test_a_server_that_is_killed_or_frozen_misses_and_doubles_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    folder = tmp_path / "digits"
    folder.mkdir()
    mirror = Mirror(folder, server.uri, "digits")
    mirror.poll_interval, mirror.longest_wait, mirror.rest = 0.05, 0.5, 0.0
    said: list[str] = []
    mirror.say = said.append
    mirror.start()
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(0)
    sweep.asked(1)
    until(lambda: server.runs() == 3)
    server.kill()
    for trial in range(2, 12):
        sweep.whole(trial)  # which nothing holds up: the server comes back only afterwards
    until(lambda: mirror.last_error is not None)
    server.start()
    until(lambda: mirror.unsent() == 0)
    server.freeze()
    sweep.whole(12)  # its run is asked for, and the answer comes when nobody waits for it any more
    until(lambda: mirror.last_error is not None and "timed out" in mirror.last_error)
    sweep.reported(1, 0)
    time.sleep(2)  # twice as long as the client waits
    server.thaw()
    sweep.ended(1)
    sweep.closed()
    left = mirror.stop(timeout=PATIENCE)
    faithful = Check(runs=14, metrics=2 * (12 * 3 + 1) + 13 * 2)
    assert (left, mirror.refused, check(folder, server.uri, "digits")) == (0, 0, faithful)
    assert [text.split(":")[0] for text in said[:2]] == ["tracking is behind", "tracking goes on"]
    assert mirror.sync(again=True) > 70
    assert check(folder, server.uri, "digits") == faithful
    elsewhere = Mirror(folder, local_uri(folder), "digits")
    elsewhere.sync()
    assert check(folder, local_uri(folder), "digits") == faithful
    assert Shown(server.uri).experiments() == ["Default", "digits"]


SECRETS = ("s3cret-word", "wr0ng-word", "t0ken-word")


class Terminal:
    """Runs commands in a folder, in this process, and keeps everything that they print."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.patch, self.capfd, self.printed = patch, capfd, ""
        patch.chdir(folder)
        patch.setattr(sys, "excepthook", sys.excepthook)  # to be put back

    def sweep(self, *arguments: str, code: int = 0) -> str:
        self.patch.setattr(sys, "argv", ["sweep", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        text = "".join(self.capfd.readouterr())
        assert (done.value.code or 0) == code, text
        self.printed += text
        return text


def test_credentials_get_the_mirror_in_and_are_kept_nowhere(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.py").write_text(
        f"from sweep.study import study_from\n\nSTUDY = study_from({tiny().to_json()!r}, 'tiny.py')\n"
    )
    terminal = Terminal(tmp_path, monkeypatch, capfd)
    with Guarded(server.port) as port:
        plain = f"http://127.0.0.1:{port}"
        right, wrong = (plain.replace("//", f"//ada:{word}@") for word in SECRETS[:2])
        assert "sweep sync" not in terminal.sweep("run", "tiny.py", "--in-process", "--tracking-uri", right)
        assert "credentials are kept nowhere" in terminal.sweep("sync", "tiny", code=2)
        assert "another user or password" in terminal.sweep("sync", "tiny", "--tracking-uri", wrong, code=2)
        assert "Traceback" not in terminal.printed
        monkeypatch.setenv("SWEEP_DEBUG", "1")
        assert "Traceback" in terminal.sweep("sync", "tiny", "--tracking-uri", wrong, code=2)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-word")
        faithful = "missing 0 runs and 0 values, doubled 0 runs and 0 values"
        assert faithful in terminal.sweep("sync", "tiny", "--tracking-uri", plain)
    files = [path for place in (tmp_path, server.folder) for path in place.rglob("*") if path.is_file()]
    assert {"journal.log", "mirror.json", "study.json", "mlflow.db", "server.log"} <= {path.name for path in files}
    for secret in (*SECRETS, base64.b64encode(b"ada:s3cret-word").decode()):
        assert [str(path) for path in files if secret.encode() in path.read_bytes()] == []
        assert secret not in terminal.printed


class Guarded:
    """A door before the server on `port` that wants a password or a token; gives its own port."""

    def __init__(self, port: int) -> None:
        class Door(BaseHTTPRequestHandler):
            def answer(self) -> None:
                basic = "Basic " + base64.b64encode(b"ada:s3cret-word").decode()
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Authorization") not in (basic, "Bearer t0ken-word"):
                    return self.reply(401, b"You are not authenticated.")
                kept = {k: v for k, v in self.headers.items() if k.lower() in ("content-type", "accept")}
                with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as server:
                    server.request(self.command, self.path, body, kept)
                    answer = server.getresponse()
                    return self.reply(answer.status, answer.read())

            do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.door = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        threading.Thread(target=self.door.serve_forever, daemon=True).start()

    def __enter__(self) -> int:
        return self.door.server_port

    def __exit__(self, *arguments: object) -> None:
        self.door.shutdown()
        self.door.server_close()


def test_the_page_shows_the_studys_own_store_and_never_outlives_the_command(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny()).path
    store = f"sqlite:///{tmp_path}/elsewhere.db"
    sweep = Sweep(folder)
    sweep.session()
    mirror = Mirror(folder, store, "tiny")
    MlflowClient(store).create_experiment("another one, which comes first")
    mirror.start()  # as the sweep does, which makes it the study's own
    assert mirror.stop(timeout=PATIENCE) == 0
    port = free_port()
    command = [sys.executable, "-c", "from sweep.cli import main; main()", "ui", "tiny", "--studies", str(tmp_path)]
    with (tmp_path / "log").open("wb") as log:
        page = subprocess.Popen([*command, "--port", str(port)], cwd=tmp_path, stdout=log, stderr=log)
    try:
        until(lambda: listens("127.0.0.1", port))
        said = (tmp_path / "log").read_text()
        assert f"http://127.0.0.1:{port}/#/experiments/2/runs" in said
        assert re.search(rf"MLflow on {store} ", said)
        assert not listens("127.0.0.2", port)  # as it would, did it listen everywhere
        taken = subprocess.run(
            [*command, "--port", str(port)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (taken.returncode, "Traceback" in taken.stderr) == (2, False)
        assert f"cannot listen on 127.0.0.1:{port} (Address already in use); choose --port" in taken.stderr
    finally:
        page.send_signal(signal.SIGKILL)
        page.wait()
    if sys.platform == "linux":
        until(lambda: not listens("127.0.0.1", port))
