"""A Ray cluster's address, looked at before anything is written: Ray itself waits minutes for one that is not there."""

from __future__ import annotations

import os
import re
import socket

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


def _first_frame(host: str, port: int) -> bytes:
    """The first bytes of an answer to HTTP/2, over which gRPC is spoken; none from something that is mute."""
    with socket.create_connection((host, port), timeout=PATIENCE) as connection:
        connection.sendall(_PREFACE)
        try:
            return connection.recv(9)
        except (TimeoutError, ConnectionError):
            return b""
