"""A Ray cluster's address, looked at before anything is written: Ray itself waits minutes for one that is not there."""

from __future__ import annotations

import os
import re
import socket
from urllib.parse import urlsplit

from sweep.errors import StudyError

PATIENCE = 5.0  # seconds for a connection, and again for the first answer
_FORM = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[\w.-]+)):(?P<port>\d{1,5})")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and an empty SETTINGS frame
_SETTINGS = 4
_REMEDY = "`ray start --head` starts a cluster and prints its address; leave --address out to run on this machine"


def check(address: str) -> None:
    """Raise StudyError unless `address` is "auto", or a host and port where something speaks gRPC as Ray does."""
    if address == "auto":
        return
    form = _FORM.fullmatch(address)
    if form is None:
        client = "; Ray Client is not used: run the command on a machine of the cluster" if "://" in address else ""
        raise StudyError(f"--address {address!r} is no address: write host:port, as 10.0.0.1:6379, or auto{client}")
    host, port = form["host"] or form["v6"], int(form["port"])
    try:
        answer = _first_frame(host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StudyError(f"no Ray cluster answers at {address} ({reason}); {_REMEDY}") from error
    if os.environ.get("RAY_USE_TLS") != "1" and answer[3:4] != bytes([_SETTINGS]):
        raise StudyError(f"what answers at {address} is not Ray's main port (6379 unless changed); {_REMEDY}")


def check_page(address: str) -> None:
    """Raise StudyError unless `address` is that of a web page, and something listens there."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StudyError(f"--address {address!r} is no page: write http://host:8265, the address of Ray's dashboard")
    try:
        socket.create_connection((parts.hostname, port), timeout=PATIENCE).close()
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "`ray dashboard cluster/cluster.yaml` makes that of a cluster http://localhost:8265"
        raise StudyError(f"nothing listens at {address} ({reason}); {remedy}") from error


def _first_frame(host: str, port: int) -> bytes:
    """The first bytes of an answer to HTTP/2, over which gRPC is spoken; none from something that is mute."""
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        connection.sendall(_PREFACE)
        try:
            return connection.recv(9)
        except (TimeoutError, ConnectionError):
            return b""
