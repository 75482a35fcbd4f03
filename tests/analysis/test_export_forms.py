"""Every form in which a network leaves answers alike: Python, ONNX's runtime, MLflow's loader and its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import sweep
from sweep.analysis.export import bundle, choose, onnx
from sweep.analysis.export.claim import claim
from sweep.configuration import TrialConfig
from sweep.datasets import ImageShape
from sweep.errors import StudyError
from sweep.models.network import Network
from sweep.orchestration.folder import StudyFolder
from sweep.registry import validated
from sweep.tracking import models
from sweep.tracking.address import local_uri
from sweep.tracking.check import check
from sweep.tracking.mlflow import Mirror
from sweep.trial import build_network

mlflow: Any = pytest.importorskip("mlflow")
onnxruntime: Any = pytest.importorskip("onnxruntime")
SAME = 1e-6  # of the largest logit


@pytest.fixture(scope="module")
def mirrored(confirmed_study: StudyFolder) -> tuple[StudyFolder, str, Any]:
    """The confirming study, the database that it was sent to, and a client of it."""
    confirming = StudyFolder.find(confirmed_study.path.parent, "tiny-confirmation")
    uri = local_uri(confirmed_study.path)
    for folder, under in ((confirmed_study, None), (confirming, confirmed_study.path)):
        mirror = Mirror(folder.path, uri, "tiny", under)
        mirror.sync()
        assert not mirror.refused, mirror.last_refusal
    return confirming, uri, mlflow.MlflowClient(uri)


def images(folder: StudyFolder) -> NDArray[np.float32]:
    config = validated(TrialConfig, next(iter(folder.ledger())).config, "the trial")
    pixels: NDArray[np.float32] = config.dataset.load().validation.pixels(slice(50)).numpy()
    return pixels


def same(answered: NDArray[np.float32], network: torch.nn.Module, shown: NDArray[np.float32]) -> bool:
    with torch.no_grad():
        logits = network(torch.from_numpy(shown)).numpy()
    return answered.shape == logits.shape and float(abs(answered - logits).max()) <= SAME * float(abs(logits).max())


def test_onnx_answers_as_the_network_does(trained_study: StudyFolder, tmp_path: Path) -> None:
    bundle.export(choose.best(trained_study, trained_study.ledger()), tmp_path / "best", onnx=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "best" / "model.onnx"))
    shown = images(trained_study)
    (answered,) = session.run(None, {"images": shown})
    assert same(answered, sweep.load(tmp_path / "best"), shown)
    assert "the largest difference between their logits" in (tmp_path / "best" / "README.md").read_text()


def network(**changes: Any) -> tuple[Network, TrialConfig, ImageShape]:
    config = {
        "dataset": "digits",
        "model": {"name": "small_cnn", "width": 4},
        "threat_model": {"name": "linf", "epsilon": 0.1},
        "defense": "standard",
        "epochs": 1,
    }
    chosen, shape = validated(TrialConfig, config | changes, "test"), ImageShape(1, (8, 8), 10)
    return build_network(chosen, shape).eval(), chosen, shape


@pytest.mark.slow
@pytest.mark.parametrize("defense", ["feature_squeezing", "autoencoder_reconstruction"])
def test_preprocessing_is_in_the_onnx_file(defense: Any, tmp_path: Path) -> None:
    ours, config, shape = network(defense=defense)
    onnx.write(ours, config, shape, tmp_path / "model.onnx")
    shown = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8)).astype(np.float32) / np.float32(255)
    (answered,) = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).run(None, {"images": shown})
    assert same(answered, ours, shown)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"defense": "noise_injection"}, "small_cnn with noise_injection cannot be exported .*random at test"),
        ({"precision": "bfloat16"}, "its layers run in bfloat16"),
        pytest.param({"defense": {"name": "feature_squeezing", "median": 3}}, "kthvalue", marks=pytest.mark.slow),
    ],
)
def test_what_onnx_cannot_hold_is_a_sentence(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=said) as refused:
        onnx.write(*network(**changes), tmp_path / "model.onnx")
    assert "\n" not in str(refused.value) and "without --onnx" in str(refused.value)


def test_each_confirmed_trial_has_its_model_once(mirrored: tuple[StudyFolder, str, Any]) -> None:
    confirming, uri, client = mirrored
    experiment = client.get_experiment_by_name("tiny").experiment_id
    first = client.search_logged_models([experiment])
    known = {model.model_id for model in first}
    assert len(first) == 2 and {model.tags["validity"] for model in first} <= {"valid", "suspect"}
    Mirror(confirming.path, uri, "tiny", confirming.searched()).sync(again=True)
    assert {model.model_id for model in client.search_logged_models([experiment])} == known
    assert check(confirming.path, uri, "tiny", confirms=True).is_faithful


def test_a_model_that_is_missing_is_found_and_sent(mirrored: tuple[StudyFolder, str, Any]) -> None:
    confirming, uri, client = mirrored
    experiment = client.get_experiment_by_name("tiny").experiment_id
    client.delete_logged_model(client.search_logged_models([experiment])[0].model_id)
    found = check(confirming.path, uri, "tiny", confirms=True)
    assert (found.models_missing, found.is_faithful) == (1, False)
    Mirror(confirming.path, uri, "tiny", confirming.searched()).sync(again=True)
    assert check(confirming.path, uri, "tiny", confirms=True).is_faithful


def test_a_champion_answers_as_the_export_does(
    mirrored: tuple[StudyFolder, str, Any],
    confirmed_study: StudyFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    confirming, uri, client = mirrored
    chosen = choose.confirmed(confirmed_study, confirmed_study.ledger())
    bundle.export(chosen, tmp_path / "won")
    told = claim(chosen) | {"claim": "confirmed"}
    for _ in range(2):
        done = models.register(uri, confirming, chosen.trial.number, "digits-tiny", told)
        assert done == ("1", None, None), "the same model is one version, however often it is asked for"
    champion = client.get_model_version_by_alias("digits-tiny", models.ALIAS)
    assert (str(champion.version), champion.description) == ("1", told["standing"])
    worse = told | {"worst_case": "0.0000", "standing": "worse"}
    assert models.register(uri, confirming, 1, "digits-tiny", worse)[:2] == ("2", "1")
    assert str(client.get_model_version_by_alias("digits-tiny", models.ALIAS).version) == "1"
    assert models.register(uri, confirming, 1, "digits-tiny", told).reason is None, "as good, and asked for later"
    again = client.get_model_version_by_alias("digits-tiny", models.ALIAS)
    assert (str(again.version), again.tags["worst_case"]) == ("2", told["worst_case"])
    assert models.register(uri, confirming, 1, "digits-tiny", told | {"claim": "suspect"}) == (
        "2",
        None,
        "it is suspect",
    )
    assert models.ALIAS not in client.get_registered_model("digits-tiny").aliases
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    loaded, shown = mlflow.pyfunc.load_model("models:/digits-tiny/1"), images(confirmed_study)
    assert same(loaded.predict(shown), sweep.load(tmp_path / "won"), shown)
    (inputs,) = loaded.metadata.get_input_schema().inputs
    assert (inputs.type, inputs.shape) == (np.dtype(np.float32), (-1, 1, 8, 8))
    assert loaded.predict(loaded.input_example).shape == (1, 10)
    files = [path for path in confirmed_study.path.rglob("mlartifacts/models/**/*") if path.is_file()]
    assert files and not [path for path in files if path.suffix in (".pkl", ".pt", ".pth", ".pickle")]
    with pytest.raises(StudyError, match="no slash, colon or quote"):
        models.register(uri, confirming, 0, "a/b", told)


@pytest.mark.slow
def test_mlflows_own_command_predicts_without_this_package(
    mirrored: tuple[StudyFolder, str, Any], tmp_path: Path
) -> None:
    """In another process, which has but the code that came with the model."""
    confirming, uri, client = mirrored
    experiment = client.get_experiment_by_name("tiny").experiment_id
    model = client.search_logged_models([experiment])[0]
    shown = images(confirming)[:2]
    (tmp_path / "asked.json").write_text(json.dumps({"inputs": shown.tolist()}))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", f"models:/{model.model_id}"]
    command += ["--env-manager", "local", "-i", str(tmp_path / "asked.json"), "-o", str(tmp_path / "told.json")]
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": "", "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    answered = np.array(json.loads((tmp_path / "told.json").read_text())["predictions"], dtype=np.float32)
    number = client.get_run(model.source_run_id).data.tags["sweep.trial"]
    bundle.export(choose.numbered(confirming, confirming.ledger(), int(number)), tmp_path / "export")
    assert same(answered, sweep.load(tmp_path / "export"), shown)
