"""Files of a trial that are not what it left are refused by whoever reads them, with their names and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sweep.analysis import kept, probes
from sweep.analysis.confirm import outcome
from sweep.analysis.export import bundle, choose
from sweep.analysis.opening import select
from sweep.checkpoint import load_weights, save_weights
from sweep.cli import app
from sweep.errors import CheckpointError
from sweep.orchestration.folder import StudyFolder
from sweep.trial import VERDICTS, WEIGHTS

BEST = WEIGHTS["best"]


@pytest.fixture
def study(trained_study: StudyFolder, tmp_path: Path) -> StudyFolder:
    return StudyFolder(Path(shutil.copytree(trained_study.path, tmp_path / "studies" / "tiny")))


def zeroed(trial: Path) -> None:
    weights = load_weights(trial / BEST)
    save_weights(trial / BEST, {name: torch.zeros_like(tensor) for name, tensor in weights.items()})


def anothers(trial: Path) -> None:
    shutil.copyfile(trial.with_name("0001") / BEST, trial / BEST)


def edited(name: str, *path: str, value: Any) -> Callable[[Path], None]:
    def change(trial: Path) -> None:
        content = json.loads((trial / name).read_text())
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (trial / name).write_text(json.dumps(content, indent=2) + "\n")

    return change


judged = edited("config.json", "threat_model", "epsilon", value=0.5)
praised = edited("metrics.json", "final", "validation/clean_accuracy", value=0.999)
selected = edited("metrics.json", "selected", "validation/clean_accuracy", value=0.999)


@pytest.mark.parametrize(
    ("change", "name"),
    [(zeroed, BEST), (anothers, BEST), (judged, "config.json"), (praised, "metrics.json"), (selected, "metrics.json")],
)
def test_a_trial_is_not_taken_away_with_files_that_it_did_not_leave(
    change: Callable[[Path], None], name: str, study: StudyFolder, tmp_path: Path
) -> None:
    change(study.trial(0))
    asked = ["export", "tiny", "--trial", "0", "--studies", str(study.path.parent), "--to", str(tmp_path / "zero")]
    result = CliRunner().invoke(app, [*asked, "--include-suspect"])
    assert isinstance(result.exception, CheckpointError)
    said = str(result.exception)
    assert f"{study.trial(0) / name} is not what trial 0 left" in said and "restore the file from a copy" in said
    assert not (tmp_path / "zero").exists()


@pytest.mark.parametrize(("change", "what"), [(judged, "configuration"), (praised, "figures"), (zeroed, None)])
def test_a_journal_of_before_digests_knows_configuration_and_figures(
    change: Callable[[Path], None], what: str | None, study: StudyFolder, tmp_path: Path
) -> None:
    change(study.trial(0))
    chosen = choose.numbered(study, study.ledger(), 0, include_suspect=True)
    chosen.trial.files = {}
    if what is None:
        assert bundle.export(chosen, tmp_path / "zero")
        return
    with pytest.raises(CheckpointError, match=f"the journal has another {what}"):
        bundle.export(chosen, tmp_path / "zero")


def test_a_journal_that_praises_a_trial_is_contradicted_by_what_the_trial_left(
    study: StudyFolder, tmp_path: Path
) -> None:
    best = choose.numbered(study, study.ledger(), 0, include_suspect=True)
    assert best.trial.best is not None and best.trial.validity is not None
    best.trial.best["metrics"] = best.trial.best["metrics"] | {"validation/clean_accuracy": 0.999}
    with pytest.raises(CheckpointError, match="the journal has another figures"):
        bundle.export(best, tmp_path / "best")
    believed = choose.numbered(study, study.ledger(), 0, include_suspect=True)
    believed.trial.validity = {**best.trial.validity, "verdict": "doubtless"}
    with pytest.raises(CheckpointError, match="the journal has another validity"):
        bundle.export(believed, tmp_path / "believed")
    assert not (tmp_path / "best").exists() and not (tmp_path / "believed").exists()


def test_a_race_and_a_report_look_at_no_others_weights(study: StudyFolder) -> None:
    trials = list(study.ledger())
    for trial in trials:
        zeroed(study.trial(trial.number))
    with pytest.raises(CheckpointError, match=r"best\.safetensors is not what trial \d left"):
        select(study, top=1, seeds=2, attacks=["fgsm"], baselines=False, raced=2)
    looked_at = kept.of_search(study, trials[:1])
    found, missing = probes.probe(study.path, looked_at, measure=True, say=lambda text: None)
    assert not found and "are not those that it left" in missing[0]
    assert probes.probe(study.path, [replace(looked_at[0], files={})], measure=True, say=lambda text: None)[0]


def test_a_confirmation_believes_no_others_verdicts(confirmed_study: StudyFolder, tmp_path: Path) -> None:
    root = Path(shutil.copytree(confirmed_study.path.parent, tmp_path / "studies"))
    confirming = StudyFolder(root / "tiny-confirmation")
    assert outcome(confirming)
    file = confirming.trial(0) / VERDICTS
    save_weights(file, {name: torch.ones_like(held) for name, held in load_weights(file).items()})
    with pytest.raises(CheckpointError, match=r"verdicts\.safetensors is not what trial 0 left"):
        outcome(confirming)
