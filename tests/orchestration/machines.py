"""Machines that share nothing, on this one: each has its own address, name and folders, and sees no other's. They are
network namespaces of Linux on one bridge, whose own address stands for the rest of the world. Not a test by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

# What a process of a machine begins with: the folders of the others vanish, and the machine knows its own name.
_ENTER = """
for other in $HIDDEN; do mount -t tmpfs none "$other"; done
for file in hosts resolv.conf; do mount --bind "$FOLDER/$file" "/etc/$file"; done
echo "$MACHINE" > /proc/sys/kernel/hostname
exec "$@"
"""


def refusal() -> str | None:
    """Why there can be no such machines here; None where there can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "network namespaces need Linux and iproute2"
    name = f"swp{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    entered = subprocess.run(["ip", "netns", "exec", name, "unshare", "--uts", "true"], check=False)
    subprocess.run(["ip", "netns", "del", name], check=False)
    return None if entered.returncode == 0 else "no network namespace can be entered here"


@dataclass
class Network:
    """The bridge `name` at 10.`number`.0.254, in this process's own namespace, and the machines on it."""

    folder: Path
    number: int
    environment: dict[str, str]
    machines: list[Machine] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"swb{self.number}"

    @property
    def address(self) -> str:
        return f"10.{self.number}.0.254"

    def join(self, name: str) -> Machine:
        machine = Machine(self, name, f"10.{self.number}.0.{len(self.machines) + 1}", self.folder / name)
        for part in ("tmp", "home"):
            (machine.folder / part).mkdir(parents=True)
        (machine.folder / "hosts").write_text(f"127.0.0.1 localhost\n{machine.address} {name}\n")
        (machine.folder / "resolv.conf").touch()  # nobody to ask for other names: at once, rather than after a while
        self.machines.append(machine)
        space, here, there = machine.space, f"v{self.number}{name}", f"w{self.number}{name}"
        _ip("netns", "add", space)
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", space)
        _ip("link", "set", here, "master", self.name, "up")
        _ip("-n", space, "addr", "add", f"{machine.address}/24", "dev", there)
        for device in ("lo", there):
            _ip("-n", space, "link", "set", device, "up")
        _ip("-n", space, "route", "add", "default", "via", self.address)  # by which Ray finds the machine's own address
        return machine


@dataclass
class Machine:
    network: Network
    name: str
    address: str
    folder: Path

    @property
    def space(self) -> str:
        return f"{self.network.name}{self.name}"

    def start(self, *command: str | Path, log: str, **environment: str) -> subprocess.Popen[bytes]:
        """A command on this machine; what it says is in the file `log` of the machine's folder."""
        others = [str(other.folder) for other in self.network.machines if other is not self]
        own = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), "RAY_TMPDIR": str(self.folder)}
        own |= {f"SWEEP_{kind}_DIR": str(self.folder / kind.lower()) for kind in ("DATA", "CACHE")}
        own |= {"HIDDEN": " ".join(others), "MACHINE": self.name, "FOLDER": str(self.folder)}
        enter = ["ip", "netns", "exec", self.space, "unshare", "--uts", "sh", "-c", _ENTER, "sh"]
        with (self.folder / log).open("wb") as file:
            return subprocess.Popen(
                [*enter, *command],
                cwd=self.folder,
                env=self.network.environment | own | environment,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
            )

    def said(self, log: str) -> str:
        return (self.folder / log).read_text()

    def kill(self) -> None:
        """As when its power goes."""
        for _ in range(5):  # what was just being started, too
            found = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True, check=False)
            for pid in found.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if not found.stdout.split():
                return
            time.sleep(0.2)


@contextmanager
def network(**environment: str) -> Iterator[Network]:
    """A network without machines yet, whose processes have this environment; all of it ends with the block."""
    folder = Path(tempfile.mkdtemp(prefix="swp"))  # a short name: Ray's sockets lie below it
    net = Network(folder, 64 + os.getpid() % 128, os.environ | environment)
    try:
        _ip("link", "add", net.name, "type", "bridge")
        _ip("addr", "add", f"{net.address}/24", "dev", net.name)
        _ip("link", "set", net.name, "up")
        yield net
    finally:
        for machine in net.machines:
            machine.kill()
            subprocess.run(["ip", "netns", "del", machine.space], check=False)
        subprocess.run(["ip", "link", "del", net.name], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
