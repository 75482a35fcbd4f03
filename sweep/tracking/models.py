"""Networks in MLflow: the model of a run, and its versions in the model registry.

A logged model is data and code side by side: safetensors and JSON, and this package's source. Nothing is pickled, and
`mlflow.pyfunc.load_model` and `mlflow models predict` want no more than MLflow and what the engine wants.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

import sweep
from sweep.datasets import ImageShape
from sweep.errors import StudyError
from sweep.exported import WEIGHTS, shape_of
from sweep.orchestration.evidence import taken
from sweep.orchestration.folder import StudyFolder
from sweep.tracking.champion import reason_against
from sweep.tracking.ledger import TrialRecord
from sweep.tracking.store import client_of, experiment_of, explaining, found_runs, identity, library

NAME = "model"  # of a run's logged model
ALIAS = "champion"  # of the version in the registry that no later one has beaten
_LOADER = "sweep_model"
_LOADER_TEXT = """import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("sweep.zip")))

from sweep.pyfunc import _load_pyfunc
"""


def log(client: Any, experiment: str, run: str, study: StudyFolder, trial: int, tags: Mapping[str, str]) -> str:
    """The identifier of a run's model, which is made from a completed trial's files where the run has none yet."""
    found = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run}' AND name = '{NAME}'")
    if ready := [model for model in found if str(model.status) == "READY"]:
        return str(ready[0].model_id)
    for begun in found:  # by a sender that was killed
        client.delete_logged_model(begun.model_id)
    model = client.create_logged_model(experiment, NAME, source_run_id=run, tags=dict(tags), model_type="classifier")
    with tempfile.TemporaryDirectory() as folder:
        save(study, study.ledger().trials[trial], Path(folder), model.model_id)
        client.log_model_artifacts(model.model_id, f"{folder}/{NAME}")
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run, [library().entities.LoggedModelOutput(model.model_id, 0)])
    return str(model.model_id)


def runs_with_model(client: Any, experiment: str) -> set[str]:
    """The runs of an experiment whose model is there, whole."""
    found, page = set[str](), None
    while page is None or page.token:
        page = client.search_logged_models([experiment], page_token=page.token if page else None)
        found |= {model.source_run_id for model in page if str(model.status) == "READY"}
    return found


def save(study: StudyFolder, trial: TrialRecord, folder: Path, identifier: str) -> None:
    """Write the model of a completed trial as MLflow reads it, into `folder`/model."""
    mlflow, exported = library(), folder / "exported"
    exported.mkdir()
    config = taken(study, trial, exported)
    shape = shape_of(config, exported / WEIGHTS)
    mlflow.pyfunc.save_model(
        folder / NAME,
        loader_module=_LOADER,
        data_path=exported,
        code_paths=_code(folder),
        signature=_signature(shape),
        input_example=_example(shape),
        pip_requirements=_requirements(),
        mlflow_model=mlflow.models.Model(model_id=identifier),
    )


class Registered(NamedTuple):
    """A version in the model registry."""

    version: str
    other: str | None  # the version that was the champion before it, if there was another
    reason: str | None  # why this one is not the champion now


def register(tracking_uri: str, study: StudyFolder, trial: int, name: str, told: Mapping[str, str]) -> Registered:
    """Make a trial's model a version of the registered model `name`, once, and that version its champion, unless there
    is one that it does not beat.

    `told` are the version's tags, by which they are compared (`sweep.tracking.champion`); "standing" is its description
    as well. The trial's run must be there. Raises StudyError, with a sentence on what to do.
    """
    if not name.strip() or set(name) & set("/:'\""):
        raise StudyError(f"--register {name!r}: a registered model's name has no slash, colon or quote in it")
    with explaining(tracking_uri, "nothing was registered"):
        return _registered(client_of(tracking_uri), study, trial, name, told)


def _registered(client: Any, study: StudyFolder, trial: int, name: str, told: Mapping[str, str]) -> Registered:
    experiment = experiment_of(client, study.study().experiment)
    runs = found_runs(client, experiment.experiment_id, identity(study.path)).get(trial, []) if experiment else []
    if not runs or runs[0].is_deleted:
        raise StudyError(f"nothing was registered: the run of trial {trial} of {study.path} was deleted in MLflow")

    run = runs[0].run
    model = log(client, experiment.experiment_id, run, study, trial, told)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = client.get_logged_model(model).artifact_location
    known = [each for each in client.search_model_versions(f"name = '{name}'") if each.source == source]
    if not known:
        known = [client.create_model_version(name, source, run, dict(told), None, told["standing"], model_id=model)]
    version = str(known[0].version)
    _tell(client, name, version, told)  # again: what is known of it may be more, or worse, than it was
    champion = client.get_registered_model(name).aliases.get(ALIAS)
    others = client.get_model_version(name, champion).tags if champion and str(champion) != version else None
    reason = reason_against(told, others)
    if reason is None:
        client.set_registered_model_alias(name, ALIAS, version)
    elif others is None and champion:
        client.delete_registered_model_alias(name, ALIAS)
    return Registered(version, None if others is None else str(champion), reason)


def _tell(client: Any, name: str, version: str, told: Mapping[str, str]) -> None:
    client.update_model_version(name, version, told["standing"])
    for key, value in told.items():
        client.set_model_version_tag(name, version, key, value)


def _code(folder: Path) -> list[str]:
    """This package in an archive, because a server takes two hundred files as two hundred requests."""
    archive, loader = folder / "sweep.zip", folder / f"{_LOADER}.py"
    package = Path(sweep.__file__).parent
    with ZipFile(archive, "w", ZIP_DEFLATED) as file:
        for path in sorted(package.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                file.write(path, path.relative_to(package.parent))
    loader.write_text(_LOADER_TEXT)
    return [str(archive), str(loader)]


def _signature(shape: ImageShape) -> Any:
    mlflow = library()
    images, logits = (-1, shape.channels, *shape.size), (-1, shape.classes)
    specs = [
        mlflow.types.Schema([mlflow.types.TensorSpec(np.dtype(np.float32), size, name)])
        for size, name in ((images, None), (logits, None))
    ]
    return mlflow.models.ModelSignature(*specs)


def _example(shape: ImageShape) -> Any:
    """One image from black to white: in sixteenths, which JSON holds in few digits and exactly."""
    height, width = shape.size
    rows = np.arange(height)[:, None] + np.arange(width)[None, :]
    shades = np.round(16 * rows / max(height + width - 2, 1)) / 16
    return np.broadcast_to(shades, (1, shape.channels, height, width)).astype(np.float32)


def _requirements() -> list[str]:
    """What the engine wants, in the versions that are installed here."""
    wanted = [text for text in requires("robust-sweep") or [] if "extra ==" not in text]
    names = [re.split(r"[^\w.-]", text)[0] for text in wanted]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]
