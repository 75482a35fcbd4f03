"""A search that was really trained, and its confirmation: for what is made of them."""

from __future__ import annotations

import shutil

import pytest
from tiny_study import tiny

from sweep.analysis.opening import begin, select
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened


@pytest.fixture(scope="session")
def trained_study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Four trials, really trained."""
    folder = StudyFolder.create(tmp_path_factory.mktemp("trained"), tiny(final_attacks=[{"name": "fgsm"}]))
    with opened(folder) as search:
        in_process.run(search)
    return folder


@pytest.fixture(scope="session")
def confirmed_study(trained_study: StudyFolder) -> StudyFolder:
    """A copy of the search, of which the best is confirmed with two seeds."""
    folder = StudyFolder(trained_study.path.parent / "again" / "tiny")
    shutil.copytree(trained_study.path, folder.path)
    confirming = begin(folder, select(folder, top=1, seeds=2, attacks=["fgsm"], baselines=False), again=False)
    with opened(confirming) as search:
        in_process.run(search)
    return folder
