"""What MLflow's page shows of a study: by what MLflow was sent."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from tiny_study import METRIC, complete, searching, tiny

from sweep.domains import Choice, Uniform
from sweep.orchestration.folder import StudyFolder
from sweep.search_space import OneOf, SearchSpace
from sweep.study import Study
from sweep.tracking.address import local_uri
from sweep.tracking.mlflow import Mirror
from sweep.tracking.store import identity
from sweep.tracking.view import page, view

mlflow: Any = pytest.importorskip("mlflow")


def stated(value: str) -> dict[str, Any]:
    """What a view says, as MLflow's page reads it."""
    packed = json.loads(value)["state"].removeprefix("deflate;")
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return found


def branched() -> Study:
    attack = OneOf(pgd={"num_steps": Choice(1, 2)}, fgsm={})
    trained = {"epsilon": 0.1, "attack": attack}
    defense = OneOf(standard={}, trades={"epsilon": 0.1, "beta": Uniform(1, 10)}, adversarial_training=trained)
    enqueue = [{"defense": "trades"}, {"defense": {"name": "adversarial_training", "attack": "pgd"}}]
    return tiny(space={"defense": defense}, enqueue=enqueue)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, Any]:
    """A study, and a client of the database that it was sent to."""
    root = tmp_path_factory.mktemp("shown")
    with searching(root, branched()) as search:
        for _ in range(2):
            complete(search, 0.3, 0.5, 0.4)
    folder = StudyFolder.find(root, "tiny")
    mirror = Mirror(folder.path, local_uri(folder.path), "tiny")
    assert mirror.sync() and not mirror.refused, mirror.last_refusal
    return folder, mlflow.MlflowClient(local_uri(folder.path))


def test_its_columns_are_what_runs_have(shown: tuple[StudyFolder, Any]) -> None:
    folder, client = shown
    experiment = client.get_experiment_by_name("tiny")
    key = page(experiment.experiment_id, identity(folder.path)).partition("viewStateShareKey=")[2]
    found = stated(experiment.tags[f"mlflow.sharedViewState.{key}"])
    order = [found["orderByKey"] + " DESC"]
    runs = client.search_runs([experiment.experiment_id], found["searchFilter"], order_by=order)
    assert found["orderByKey"] == f"metrics.`best/{METRIC}`" and not found["orderByAsc"]
    assert len(runs) == 3, "the study's own, and its trials"
    assert [*found["columnWidths"]] == found["columnOrder"] == ["attributes.`Run Name`", *found["selectedColumns"]]
    columns = {tuple(name.rstrip("`").split(".`")) for name in found["selectedColumns"]}
    told = {(kind, name) for run in runs for kind in ("tags", "metrics", "params") for name in getattr(run.data, kind)}
    untold = {"final/validation/worst_case/adversarial_accuracy", "cost/seconds"}  # these trials were told by hand
    assert {name for _, name in columns - told} == untold
    searched = {"optimizer.learning_rate", "defense.beta", "defense.attack.name", "defense.attack.num_steps"}
    assert {name for kind, name in columns if kind == "params"} == searched


def test_a_note_that_somebody_wrote_stays(shown: tuple[StudyFolder, Any]) -> None:
    folder, client = shown
    experiment, note = client.get_experiment_by_name("tiny"), "mlflow.note.content"
    assert page(experiment.experiment_id, identity(folder.path)) in experiment.tags[note]
    client.set_experiment_tag(experiment.experiment_id, note, "mine")
    Mirror(folder.path, local_uri(folder.path), "tiny").sync(again=True)
    assert client.get_experiment_by_name("tiny").tags[note] == "mine"


def test_the_view_of_a_large_space_finds_room_in_a_tag() -> None:
    space = SearchSpace(**{f"defense.number_{number}": Uniform(0, 1) for number in range(100)})
    value = view(tiny().model_copy(update={"space": space}), "0123456789abcdef")[1]
    assert len(stated(value)["selectedColumns"]) > 100 and len(value) < 5_000
