"""`sweep doctor`: what is well, and what each thing that is wrong says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_commands import TINY, sweep

from sweep.orchestration.doctor import Answer, Finding, findings
from sweep.orchestration.machine import look, marked


def diagnosis(*arguments: str, folder: Path, code: int) -> dict[str, Any]:
    printed = json.loads(sweep("doctor", *arguments, "--json", folder=folder, code=code))
    assert printed["well"] is (code == 0)
    return {finding["check"]: finding for finding in printed["findings"]}


def test_this_machine_can_run_a_sweep_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    found = diagnosis("tiny.py", folder=tmp_path, code=0)
    assert list(found) == ["versions", "GPUs", "storage", "disk", "data", "MLflow"]
    assert found["data"]["found"].startswith("digits: 200 training and ")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.py"]
    assert "a sweep can run" in sweep("doctor", folder=tmp_path)


def test_what_is_wrong_is_said_with_its_remedy(tmp_path: Path) -> None:
    text = TINY.replace('dict(name="digits", train_size=200)', 'dict(name="image_folder", folder="/nowhere", size=8)')
    (tmp_path / "tiny.py").write_text(text)
    found = diagnosis("tiny.py", "--tracking-uri", "http://127.0.0.1:9", folder=tmp_path, code=1)
    assert {check for check, finding in found.items() if finding["remedy"]} == {"data", "MLflow"}
    assert "/nowhere" in found["data"]["found"] and "SWEEP_DATA_DIR" in found["data"]["remedy"]
    assert "send it everything later" in found["MLflow"]["remedy"]
    found = diagnosis("--studies", "tiny.py", "--tracking-uri", "ftp://x", folder=tmp_path, code=1)
    assert "tiny.py cannot be written" in found["storage"]["found"]
    assert "unknown scheme 'ftp'" in found["MLflow"]["found"]
    printed = sweep("doctor", "--studies", "tiny.py", folder=tmp_path, code=1)
    assert "to mend" in printed and "--studies" in printed


def test_a_node_that_sees_another_folder_or_a_full_disk_is_found(tmp_path: Path) -> None:
    with marked(tmp_path / "studies") as mark:
        assert look(mark, None)["checks"]["storage"][1] is None
    found, remedy = look(mark, None)["checks"]["storage"]
    assert "is not the folder that the driver writes to" in found and remedy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweep.disk.LEAST", 2**62)
        found, remedy = look(str(tmp_path), None)["checks"]["disk"]
    assert "MB are free" in found and remedy and remedy.startswith("make some room")


@pytest.fixture
def said() -> Iterator[dict[str, Any]]:
    versions = {"python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0"}
    yield {"versions": versions, "gpus": ["H200"], "checks": {"disk": ("room", None)}}


def test_nodes_differ_from_the_driver_lack_their_gpus_or_are_silent(said: dict[str, Any]) -> None:
    expected = {"python": "3.11.7", "torch": "2.13.0+cpu", "ray": "2.60.0", "numpy": "2.4.6"}
    answers = [Answer("a", 2.0, said), Answer("b", 0.0, silence="No module named 'torch'")]
    found = list(findings(answers, expected))
    assert [(finding.node, finding.check, bool(finding.remedy)) for finding in found] == [
        ("a", "versions", True),
        ("a", "GPUs", True),
        ("a", "disk", False),
        ("b", "answers", True),
    ]
    assert found[0].found == "torch 2.13.0 instead of 2.13.0+cpu, numpy absent instead of 2.4.6"
    assert found[1].found == "H200, and Ray offers 2"
    assert list(findings([Answer("a", 1.0, said)], said["versions"]))[:2] == [
        Finding("a", "versions", "python 3.11.7, torch 2.13.0, ray 2.60.0"),
        Finding("a", "GPUs", "H200"),
    ]
