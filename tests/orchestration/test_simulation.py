"""The benchmark of long studies, made short: it ends with code 1 where resuming or memory is worse than claimed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "simulation.py"


@pytest.mark.slow
def test_a_long_study_is_small_in_memory_and_soon_resumed(tmp_path: Path) -> None:
    curves = Path(os.environ.get("SWEEP_DATA_DIR", "nowhere")) / "learning_curves" / "real_at_curves.csv"
    if not curves.exists():
        pytest.skip("the real learning curves are not in SWEEP_DATA_DIR")
    command = [sys.executable, str(SCRIPT), "--trials", "400", "--sampler", "random"]
    command += ["--curves", str(curves), "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(
        line.split(": ", 1) for line in done.stdout.splitlines() if line.startswith(("memory", "journal", "mirror"))
    )
    assert 0 < float(told["memory"].split()[0]) < 20
    events = told["journal"].rsplit(", ", 1)[1].split()[0]
    assert told["mirror"] == f"{events} events taken, 0 bytes unsent"
    assert "resumed in" in done.stdout
