"""A sweep's mirror, in a process of its own.

MLflow's client works some 25 ms at each trial, and as long at its own import as at a hundred of them. In the sweep's
process everything else would wait for that, since Python runs one thread at a time.

The process is told by a line what to mirror, and at the end by another how long it may go on; it answers with what the
mirror has to say. It goes where the sweep goes, at once: whatever it had in hand is sent again by whoever comes next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import sweep
from sweep.tracking.address import redacted
from sweep.tracking.home import address_of
from sweep.tracking.mirror import unsent
from sweep.tracking.mlflow import Mirror

AGAIN = 60.0  # seconds after which a process that died is followed by another
GRACE = 2.0  # seconds beside those that it is given, in which it says its last word
_OURS = "sweep: "  # what the process's own lines begin with
_LESS = 10  # the process is as much nicer than the sweep: trials come first


class Follower:
    """Mirrors the journal in `folder` to the MLflow at `tracking_uri`, as `Mirror` does, but no thread of this process.

    `say` hears of each outage's beginning and end, of the one that `away` says of only the end; `last_error` is the
    sentence that says why some events were not sent, known after `stop`. Times are in seconds.
    """

    def __init__(
        self, folder: Path, tracking_uri: str, study: str, under: Path | None = None, away: str | None = None
    ) -> None:
        self.say: Callable[[str], None] = lambda text: None
        self.last_error = away
        self._folder = folder
        self._address = address_of(folder, tracking_uri)
        # By a pipe, because everybody on the machine can read a command line, and the URI may hold a password.
        what = {"folder": str(folder), "tracking_uri": tracking_uri, "study": study, "away": away}
        self._what = json.dumps(what | {"under": str(under) if under else None}) + "\n"
        self._closing = threading.Event()
        self._beginning = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._last_words = ""  # of the present process

    def start(self) -> None:
        """Follow the journal until `stop`."""
        self._begin()
        self._thread = threading.Thread(target=self._listen, name="follower", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> int:
        """Let the process send what is left, for at most `timeout` seconds; returns the events still unsent."""
        with self._beginning:
            is_again, process = self._closing.is_set(), self._process
            self._closing.set()
        if process is not None and self._thread is not None:
            if not is_again:
                self._tell(process, json.dumps(timeout) + "\n")
                self._thread.join(timeout + GRACE)
            process.kill()
            self._thread.join()
        return self.unsent()

    def unsent(self) -> int:
        """The number of events that MLflow has not acknowledged."""
        return unsent(self._folder, self._address)

    def _begin(self) -> bool:
        with self._beginning:
            if self._closing.is_set():
                return False
            self._last_words = ""
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sweep.tracking.follower"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"PYTHONPATH": _path()},
                start_new_session=True,  # Ctrl-C is for the sweep, which then says how long to go on
            )
            self._tell(self._process, self._what)
            return True

    def _listen(self) -> None:
        """Hear what the process says; where it dies, begin another."""
        while (process := self._process) is not None and process.stdout is not None:
            for line in process.stdout:
                self._hear(line.strip())
            process.wait()
            self._hear_death(process)
            while not self._closing.wait(AGAIN):
                with suppress(OSError):  # no memory, say: it is tried again
                    if self._begin():
                        break
            else:
                return

    def _hear(self, line: str) -> None:
        if not line.startswith(_OURS):  # what a library prints, or Python as it ends
            self._last_words = line or self._last_words
            return
        message = json.loads(line.removeprefix(_OURS))
        if "say" in message:
            self.say(message["say"])
        else:
            self.last_error = message["last_error"]

    def _hear_death(self, process: subprocess.Popen[str]) -> None:
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        why = redacted(self._last_words or f"exit code {process.returncode}")
        if process.returncode == -signal.SIGKILL:  # of which it could say nothing
            why = "it was killed, by someone or for want of memory"
        error = f"the process that tells MLflow of the sweep ended ({why})"
        if not self._closing.is_set() and error != self.last_error:
            self.last_error = error
            self.say(f"tracking is behind: {error}; another follows, and what is missing is sent later")

    @staticmethod
    def _tell(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        with suppress(OSError, ValueError):  # it is dead, which `_listen` hears and closes its pipes
            process.stdin.write(line)
            process.stdin.flush()


def _path() -> str:
    """This very code, wherever the process stands."""
    return os.pathsep.join([str(Path(sweep.__path__[0]).parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def main() -> None:
    """The process: mirror, until told how long to go on or left alone."""

    def tell(**message: str | None) -> None:
        with suppress(OSError):
            print(f"\n{_OURS}{json.dumps(message)}", flush=True)  # on a line of its own, whatever else was printed

    os.nice(_LESS)
    what = json.loads(sys.stdin.readline())
    under = Path(what["under"]) if what["under"] else None
    mirror = Mirror(Path(what["folder"]), what["tracking_uri"], what["study"], under)
    mirror.say, mirror.last_error = lambda text: tell(say=text), what["away"]
    mirror.start()
    if last := sys.stdin.readline():
        mirror.stop(json.loads(last))
        tell(last_error=mirror.last_error)
    os._exit(0)  # a request in hand would hold it


if __name__ == "__main__":
    main()
