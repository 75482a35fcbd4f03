"""A trial's side: real trials become messages, and whatever ends a trial becomes a last one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_study import METRIC, tiny

from sweep.orchestration.worker import LONGEST_MESSAGE, Assignment, describe, exhausted, messages
from sweep.validity import CHECKS


def assignment(folder: Path, reported: int = 0, **changes: Any) -> Assignment:
    study = tiny()
    config = {**next(study.space.corners()), "optimizer": {"name": "sgd", "learning_rate": 0.1}, **changes}
    return Assignment(7, study.trial_config(config, 7).to_json(), str(folder / "0007"), reported)


def test_an_epoch_is_a_message_and_the_end_is_the_last(tmp_path: Path) -> None:
    given = assignment(tmp_path)
    said = list(messages(given))
    assert "log" in said.pop(0)
    assert [message.get("epoch") for message in said] == [1, 2, 3, None]
    assert all((message["trial"], message["pid"]) == (7, os.getpid()) for message in said)
    assert all(0 <= message["metrics"][METRIC] <= 1 for message in said[:-1])
    assert said[-1]["end"] == "completed" and said[-1]["error"] is None
    assert said[-1]["final"]["validation/worst_case/adversarial_accuracy"] <= 1
    json.dumps(said, allow_nan=False)
    assert {path.name for path in (tmp_path / "0007").iterdir()} >= {"config.json", "checkpoint.pt", "best.safetensors"}


def test_a_resumed_trial_says_only_what_is_not_known(tmp_path: Path) -> None:
    given = assignment(tmp_path)
    _, *alone = messages(given)
    _, *again = messages(assignment(tmp_path, reported=1))  # its checkpoint holds all three epochs
    assert [message.get("epoch") for message in again] == [2, 3, None]
    assert again[0]["metrics"] == alone[1]["metrics"]
    assert again[-1]["final"] == alone[-1]["final"]


def test_a_trial_broken_off_goes_on_and_ends_with_the_same_figures(tmp_path: Path) -> None:
    _, *whole = messages(assignment(tmp_path / "whole"))
    running = messages(assignment(tmp_path / "broken"))
    assert "log" in next(running) and next(running)["epoch"] == 1
    del running
    _, *rest = messages(assignment(tmp_path / "broken", reported=1))
    assert [message.get("epoch") for message in rest] == [2, 3, None]
    assert rest[-1]["final"] == whole[-1]["final"]
    assert rest[1]["metrics"][METRIC] == whole[2]["metrics"][METRIC]


def test_with_rare_checkpoints_a_loss_costs_what_lies_behind_the_last(tmp_path: Path) -> None:
    """What was reported and not saved is trained again, to the same figures, and not said again."""
    _, *whole = messages(assignment(tmp_path / "whole"))
    rare = replace(assignment(tmp_path / "broken"), checkpoint_seconds=3600.0)
    running = messages(rare)
    assert ["log" in next(running), next(running)["epoch"], next(running)["epoch"]] == [True, 1, 2]
    del running
    assert not (tmp_path / "broken" / "0007" / "checkpoint.pt").exists()
    _, *rest = messages(replace(rare, reported=2))
    assert [message.get("epoch") for message in rest] == [3, None] and rest[-1]["final"] == whole[-1]["final"]
    assert (tmp_path / "broken" / "0007" / "checkpoint.pt").exists()


@pytest.mark.parametrize(("batch_size", "reason"), [(10, "the loss is not finite"), (200, "not finite in epoch")])
def test_a_trial_that_diverges_says_so(batch_size: int, reason: str, tmp_path: Path) -> None:
    """With one step an epoch, the step that breaks the network comes after its last loss, which was a number."""
    optimizer = {"name": "sgd", "learning_rate": 10.0, "weight_decay": 1.0}
    said = list(messages(assignment(tmp_path, optimizer=optimizer, batch_size=batch_size, epochs=100)))
    assert said[-1]["end"] == "diverged" and said[-1]["final"] is None
    assert said[-1]["error"]["class"] == "Diverged" and reason in said[-1]["error"]["message"]
    json.dumps(said, allow_nan=False)  # nothing that is not a number was ever said


def test_a_trial_whose_check_gives_no_number_has_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was measured on a network that is broken; and the journal, which takes no such thing, would end the sweep."""
    monkeypatch.setitem(CHECKS, "V1", replace(CHECKS["V1"], measure=lambda subject: math.nan))
    *_, last = messages(assignment(tmp_path))
    assert last["end"] == "diverged" and last["error"]["message"] == "not finite in the validity checks: V1"
    assert not (tmp_path / "0007" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("changes", "name", "part"),
    [
        (
            {"dataset": {"name": "image_parquet", "train": "nowhere.parquet", "test": "b.parquet"}},
            "DataError",
            "nowhere.parquet",
        ),
        ({"dataset": {"name": "digits", "train_size": 5000}}, "DataError", "train_size"),
    ],
)
def test_a_trial_that_fails_says_why_and_keeps_the_rest(
    changes: dict[str, Any], name: str, part: str, tmp_path: Path
) -> None:
    _, only = messages(assignment(tmp_path, **changes))
    assert only["end"] == "failed" and only["error"]["class"] == name and part in only["error"]["message"]
    assert name in Path(only["error"]["log"]).read_text()


def test_a_configuration_whose_values_do_not_go_together_fails_as_a_trial(tmp_path: Path) -> None:
    rule = {"name": "paper_ratio", "minimum": 0.5, "maximum": 0.4}
    defense = {"name": "hybrid", "epsilon": 0.05, "alpha_rule": rule}
    broken = Assignment(7, {**assignment(tmp_path).config, "defense": defense}, str(tmp_path / "0007"), 0)
    _, only = messages(broken)
    assert only["end"] == "failed" and only["error"]["class"] == "ConfigurationError"
    assert "minimum must lie below maximum" in only["error"]["message"]


def test_an_error_is_one_line_of_readable_length() -> None:
    assert describe(ValueError("first\n   second ")) == {"class": "ValueError", "message": "first second"}
    assert describe(KeyError()) == {"class": "KeyError", "message": ""}
    assert len(describe(OSError("x" * 10_000))["message"]) == LONGEST_MESSAGE


def test_an_assignment_is_plain_data() -> None:
    given = Assignment(3, {"epochs": 2}, "folder", 1)
    assert Assignment(**json.loads(json.dumps(given.to_json()))) == given


EXHAUSTED = """
import json, resource, sys
from sweep.orchestration.worker import Assignment, messages

said = messages(Assignment(**json.loads(sys.argv[1])))
next(said)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(json.dumps(list(said)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory as Linux does")
def test_a_trial_that_runs_out_of_memory_says_whose(tmp_path: Path) -> None:
    large = {"name": "small_cnn", "width": 1024}  # 600 MB
    given = json.dumps(assignment(tmp_path, model=large).to_json())
    command = [sys.executable, "-c", EXHAUSTED, given]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    (last,) = json.loads(process.stdout)
    assert (last["end"], last["memory"], last["final"]) == ("out_of_memory", "host", None)
    assert "memory" in last["error"]["message"] and Path(last["error"]["log"]).is_file()


def test_whose_memory_ran_out_is_told_by_the_error() -> None:
    assert exhausted(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")) == "gpu"
    assert exhausted(MemoryError()) == "host" and exhausted(RuntimeError("no memory of that")) is None
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(10**15)
    assert exhausted(torchs.value) == "host"
