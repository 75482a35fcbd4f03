"""A study's report beside its run, in a real MLflow database."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mirrored_study import Shown, Sweep, free_port

from sweep.errors import StudyError
from sweep.tracking.address import local_uri
from sweep.tracking.attach import attach
from sweep.tracking.mlflow import Mirror

mlflow: Any = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "a study #1"
    folder.mkdir()
    (folder / "study.json").write_text('{"name": "digits"}')
    sweep = Sweep(folder)
    sweep.session()
    sweep.whole(0)
    Mirror(folder, local_uri(folder), "digits").sync()
    return folder


def test_a_report_lies_with_the_studys_own_run_and_replaces_the_last_one(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    for text in ("the first", "the second"):
        report.write_text(text)
        run = attach(folder, local_uri(folder), "digits", [report], "report")
    shown = Shown(local_uri(folder))
    assert [parent.info.run_id for parent in shown.parents] == [run]
    assert [file.path for file in shown.client.list_artifacts(run, "report")] == ["report/report.html"]
    assert Path(shown.client.download_artifacts(run, "report/report.html")).read_text() == "the second"


def test_a_copied_study_does_not_write_where_it_was_copied_from(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (tmp_path / "other.html").write_text("of the copy")
    with pytest.raises(StudyError, match="was moved"):
        attach(copy, local_uri(copy), "digits", [tmp_path / "other.html"], "report")
    assert not list(folder.rglob("other.html"))


def test_what_was_never_sent_and_who_does_not_answer_are_told(folder: Path) -> None:
    with pytest.raises(StudyError, match="holds nothing of another yet: `sweep sync another`"):
        attach(folder, local_uri(folder), "another", [], "report")
    with pytest.raises(StudyError, match=r"nothing was attached in MLflow: .* cannot be reached"):
        attach(folder, f"http://127.0.0.1:{free_port()}", "digits", [], "report")
