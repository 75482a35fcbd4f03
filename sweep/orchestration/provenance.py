"""Where figures come from: the versions and the commit of the code that runs."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("robust-sweep", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "pyarrow")


def versions() -> dict[str, str]:
    """Of Python and of every package that figures may depend on, where installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def commit() -> str | None:
    """The commit of the code that runs, with a plus where it was changed; None outside a repository."""
    here = Path(sys.modules["sweep"].__file__ or ".").parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
