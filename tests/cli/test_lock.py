"""One sweep at a time on a study folder, among real processes; a killed one's folder is taken over, and said. Ctrl-C at
the very end is an orderly end as well."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from mirrored_study import free_port
from processes import paused, pausing
from test_commands import TINY, sweep
from test_in_process import RUN

from sweep.cli.files import load_study
from sweep.cli.progress import Progress
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened


@pytest.mark.slow
def test_a_running_study_is_refused_to_others_and_a_killed_ones_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY.replace("trials=3", "trials=1"))
    study = StudyFolder.create(tmp_path / "studies", load_study(tmp_path / "tiny.py"))
    command = [*pausing("told[-1]['event'] == 'reported'", RUN), str(study.path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as owner:
        try:
            paused(owner)
            away = ("--in-process", "--tracking-uri", f"http://127.0.0.1:{free_port()}")  # which nobody asks before
            for arguments in (("resume", "tiny", *away), ("confirm", "tiny", *away), ("extend", "tiny", "--trials=1")):
                refused = sweep(*arguments, folder=tmp_path, code=2)
                owned = f"is being run by process {owner.pid} on {os.uname().nodename}; wait for it or stop it"
                assert refused == f"error: {Path('studies', 'tiny')} {owned}\n"
            assert "already holds this very study" in sweep("run", "tiny.py", "--in-process", folder=tmp_path, code=2)
        finally:
            owner.kill()
    printed = sweep("resume", "tiny", "--in-process", folder=tmp_path)
    assert f"took over the lock of process {owner.pid}" in printed
    assert "1 in flight" in printed and "1 trial: 1 completed" in printed
    assert study.journal.read_bytes().count(b'{"event":"asked"') == 1


class Full(io.StringIO):
    """A file on a disk that takes nothing more."""

    def write(self, text: str) -> int:
        with Path("/dev/full").open("wb", buffering=0) as full:
            return full.write(text.encode())


def test_a_trial_ends_with_what_it_cost_its_validation_and_its_memory(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY.replace("trials=3", "trials=1"))
    study, said = load_study(tmp_path / "tiny.py"), io.StringIO()
    folder = StudyFolder.create(tmp_path, study)
    with Progress(study) as progress, opened(folder, progress.hear, progress.say) as search:
        progress.console.file = said
        progress.follow(search)
        in_process.run(search)
    (trial,) = folder.ledger()
    seconds, validating = trial.timed
    assert 0 < validating < seconds == trial.reports[2]["seconds"]
    assert validating == trial.reports[1]["validation/seconds"] + trial.reports[2]["validation/seconds"]
    cost = re.search(r"completed .*  (\d+) s, (\d+)% of it validation; (\d+) MB", said.getvalue())
    assert cost is not None, said.getvalue()
    assert [int(part) for part in cost.groups()] == [
        round(seconds),
        round(100 * validating / seconds),
        round(trial.reports[2]["peak_memory_mb"]),
    ]


def test_a_sweep_whose_output_nobody_takes_goes_on(tmp_path: Path) -> None:
    """Its terminal is gone, or the disk of its log is full: that says nothing about the sweep."""
    (tmp_path / "tiny.py").write_text(TINY.replace("trials=3", "trials=1"))
    study = load_study(tmp_path / "tiny.py")
    folder = StudyFolder.create(tmp_path, study)
    with Progress(study) as progress, opened(folder, progress.hear, progress.say) as search:
        progress.console.file = Full()
        progress.follow(search)
        in_process.run(search)
    assert folder.ledger().counts() == {"completed": 1}


@pytest.mark.slow
def test_ctrl_c_while_the_tables_are_written_ends_in_words(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY.replace("trials=3", "trials=1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweep.analysis.results.pq.write_table", lambda *_: signal.raise_signal(signal.SIGINT))
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background
        try:
            printed = sweep("run", "tiny.py", "--in-process", folder=tmp_path, code=130)
        finally:
            signal.signal(signal.SIGINT, before)
    assert "go on with   sweep resume tiny" in printed and "not written: `sweep resume` does so" in printed
    study = tmp_path / "studies" / "tiny"
    assert not list(study.glob("*.parquet*")) and not list(study.glob(".*"))
    (study / ".epochs.parquet.x1y2z3").touch()  # as one that was killed there would have left
    assert f"{Path('studies', 'tiny', 'results.parquet')}" in sweep("resume", "tiny", "--in-process", folder=tmp_path)
    assert not list(study.glob(".*"))
