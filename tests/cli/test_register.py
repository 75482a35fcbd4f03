"""`sweep export --register` to a server of MLflow, as a user does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mirrored_study import Server
from test_commands import TINY, sweep

from sweep.orchestration.folder import StudyFolder

mlflow: Any = pytest.importorskip("mlflow")


@pytest.mark.slow
def test_the_best_becomes_the_champion_and_a_worse_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    sweep("run", "tiny.py", "--in-process", folder=tmp_path)
    ledger = StudyFolder.find(tmp_path / "studies", "tiny").ledger()
    worst = str(min(ledger, key=lambda trial: trial.final["validation/worst_case/adversarial_accuracy"]).number)
    server = Server(tmp_path)
    server.start()
    try:
        where = ("--tracking-uri", server.uri)
        printed = sweep("export", "tiny", "--best", "--to", "best", "--register", "digits", *where, folder=tmp_path)
        assert f"version 1 of digits in {server.uri}, the champion: models:/digits@champion" in printed
        printed = sweep(
            "export", "tiny", "--trial", worst, "--to", "worst", "--register", "digits", *where, folder=tmp_path
        )
        assert "version 2 of digits" in printed and "version 1 stays champion: its worst case is 0." in printed
        client = mlflow.MlflowClient(server.uri)
        champion = client.get_model_version_by_alias("digits", "champion")
        assert str(champion.version) == "1" and "unconfirmed" in champion.description
        assert champion.description.startswith("tiny, trial ") and champion.tags["claim"] == "unconfirmed"
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        model = mlflow.pyfunc.load_model("models:/digits@champion")
        assert model.predict(np.zeros((2, 1, 8, 8), dtype=np.float32)).shape == (2, 10)
    finally:
        server.kill()
