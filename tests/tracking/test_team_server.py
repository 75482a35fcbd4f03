"""MLflow for a team, as docs/cluster.md says: it takes the sweeps of who knows a password, which is kept nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from team_server import Team, needs_postgres, team
from tiny_study import tiny

from sweep.errors import StudyError
from sweep.study import Budget
from sweep.tracking.attach import attach
from sweep.tracking.check import check
from sweep.tracking.probe import probe

pytestmark = [needs_postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    pytest.importorskip("mlflow")
    with team(tmp_path_factory.mktemp("team")) as server:
        yield server


def test_it_takes_a_sweep_and_a_report_and_no_password_is_written_anywhere(
    server: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny(budget=Budget(trials=2)).to_json()
    (tmp_path / "tiny.py").write_text(
        f"from sweep.study import study_from\n\nSTUDY = study_from({study!r}, 'tiny.py')\n"
    )
    done = subprocess.run(
        ["bash", "-euc", server.commands],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert (done.returncode, "sweep sync" in said) == (0, False), said
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "studies" / "tiny"
    assert (found := check(folder, server.uri, "tiny")).is_faithful and found.runs == 3
    attach(folder, server.uri, "tiny", [folder / "study.json"], "report")
    files = server.store.contents(server.bucket)
    assert [name for name in files if name.startswith("mlflow/") and name.endswith("/report/study.json")] != []
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another-one-of-12")
    with pytest.raises(StudyError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as refused:
        probe(server.uri, "tiny")
    everything = [path for folder in (tmp_path, *server.folders) for path in folder.rglob("*") if path.is_file()]
    written = {str(path): path.read_bytes() for path in everything if path.name != "users.ini"}
    assert any(name.endswith("journal.log") for name in written) and any("/data/base/" in name for name in written)
    for secret in (*server.passwords.values(), "another-one-of-12"):
        assert secret not in said + str(refused.value)
        assert [name for name, data in (written | files).items() if secret.encode() in data] == []
