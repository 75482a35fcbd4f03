"""The server for a team as docs/cluster.md says, by that page's own commands: MLflow behind passwords, over PostgreSQL
and a stand-in for S3. Not a test by itself."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mirrored_study import PATIENCE, free_port, listens, until

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"
_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
needs_postgres = pytest.mark.skipif(not _BINARIES, reason="Debian's postgresql is not installed (see .ci/run)")


@dataclass(frozen=True)
class Store:
    """An S3 that is not AWS's, with what its clients read of it in their environment."""

    endpoint: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
        return {**keys, "AWS_ENDPOINT_URL": self.endpoint, "MLFLOW_S3_ENDPOINT_URL": self.endpoint}

    def client(self) -> Any:
        import boto3

        names = ("aws_access_key_id", "aws_secret_access_key")
        keys = {name: self.environment[name.upper()] for name in names}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)

    def contents(self, bucket: str) -> dict[str, bytes]:
        client = self.client()
        keys = [found["Key"] for found in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@dataclass(frozen=True)
class Team:
    """The server, its first user, where it writes, and the page's commands for a sweep."""

    uri: str
    user: str
    passwords: Mapping[str, str]  # by what stands for them on the page
    folders: tuple[Path, ...]
    store: Store
    bucket: str
    commands: str

    @property
    def environment(self) -> dict[str, str]:
        """What a sweep reads to use it."""
        credentials = {
            "MLFLOW_TRACKING_USERNAME": self.user,
            "MLFLOW_TRACKING_PASSWORD": self.passwords["ADAS-PASSWORD"],
        }
        return {"MLFLOW_TRACKING_URI": self.uri, **credentials}


@contextmanager
def object_store(folder: Path, *buckets: str, host: str = "127.0.0.1") -> Iterator[Store]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "--host", host, "--port", str(port)]
    with _running(command, folder / "store.log", host, port):
        store = Store(f"http://{host}:{port}", folder)
        for bucket in buckets:
            store.client().create_bucket(Bucket=bucket)
        yield store


@contextmanager
def postgres() -> Iterator[tuple[Path, dict[str, str]]]:
    """Debian's PostgreSQL over a folder of its own, on loopback; its clients' variables, as its owner uses them."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a short name that its user may enter: pytest's folders are closed
    owner: dict[str, Any] = {}
    if os.getuid() == 0:  # as whom PostgreSQL refuses to run
        shutil.chown(folder, "postgres", "postgres")
        owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
    data, port = folder / "data", free_port()
    options = [
        "--username=postgres",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
        "--no-sync",
        "--locale=C.UTF-8",
    ]
    try:
        make: list[Any] = [_BINARIES[-1] / "initdb", "-D", data, *options]
        made = subprocess.run(make, cwd=folder, capture_output=True, text=True, check=False, **owner)
        assert made.returncode == 0, made.stderr
        serve = [
            _BINARIES[-1] / "postgres",
            "-D",
            data,
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-k",
            folder,
            "-c",
            "fsync=off",
        ]
        with _running(serve, folder / "log", "127.0.0.1", port, signal.SIGINT, **owner):  # gives its memory back, too
            yield folder, {"PGHOST": str(folder), "PGPORT": str(port), "PGUSER": "postgres"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def team(folder: Path, host: str = "127.0.0.1") -> Iterator[Team]:
    """The page's commands, one after another, with passwords and this address in place of what stands for them."""
    passwords = {name: secrets.token_hex(12) for name in ("DATABASE-PASSWORD", "ADMIN-PASSWORD", "ADAS-PASSWORD")}
    port = free_port()
    values = passwords | {
        "10.0.0.5": host,
        "--port 5000": f"--port {port}",
        "mlflow.example.org:5000": f"{host}:{port}",
    }
    values |= {"BUCKET": "bucket", "search_spaces/digits.py": "tiny.py --in-process"}
    database, users, server, user, commands = blocks("MLflow for a team", values)
    (folder / "users.ini").write_text(users)
    (folder / "users.ini").chmod(0o600)
    with object_store(folder, "bucket") as store, postgres() as (files, owner):
        # PostgreSQL's owner connects as such; what the page installs, the tests' environment has.
        stand_ins = 'sudo() { shift 2; "$@"; }; pip() { :; }\n'
        _bash(stand_ins + database, folder, os.environ | owner, f"{passwords['DATABASE-PASSWORD']}\n" * 2)
        environment = os.environ | store.environment | {"PGPORT": owner["PGPORT"], "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = ["bash", "-euc", server]
        with _running(command, folder / "server.log", host, port, cwd=folder, env=environment):
            _bash(user, folder, os.environ, passwords["ADMIN-PASSWORD"] + "\n")
            yield Team(f"http://{host}:{port}", "ada", passwords, (folder, files), store, "bucket", commands)


def blocks(title: str, values: Mapping[str, str]) -> list[str]:
    """What the page has to be typed or written in a section, with values in place of the page's own."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    for name, value in values.items():
        assert name in section, f"the page does not speak of {name}"
        found = [block.replace(name, value) for block in found]
    return found


def _bash(commands: str, folder: Path, environment: Mapping[str, str], typed: str) -> None:
    """Without a terminal, so that what asks for a password reads it from here."""
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _running(
    command: list[Any], log: Path, host: str, port: int, end: signal.Signals = signal.SIGKILL, **options: Any
) -> Iterator[None]:
    """A server, until it is not needed any more; its processes end with it."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, **options)
    try:
        until(lambda: process.poll() is not None or listens(host, port))
        assert process.poll() is None, log.read_text()
        yield
    finally:
        os.killpg(process.pid, end)
        process.wait(PATIENCE)
