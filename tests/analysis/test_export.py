"""Trials taken away: what the folder holds, what its card says, and that nothing is overwritten or left half."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom
from tiny_study import METRIC, cut, finish, report, searching, told

import sweep
from sweep.analysis.confirm import outcome
from sweep.analysis.export import bundle, choose
from sweep.analysis.export.account import wilson
from sweep.analysis.export.chosen import Chosen
from sweep.analysis.export.robustbench import radius
from sweep.analysis.results import pareto
from sweep.analysis.standing import standing
from sweep.checkpoint import folder_atomically, load_weights
from sweep.configuration import TrialConfig
from sweep.errors import CheckpointError, DataError, StudyError
from sweep.objective import Maximize
from sweep.orchestration.folder import StudyFolder
from sweep.registry import validated
from sweep.trial import Trial

FILES = ["README.md", "config.json", "metrics.json", "model.safetensors", "robustbench.json"]


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_best_is_taken_away_and_called_unconfirmed(trained_study: StudyFolder, tmp_path: Path) -> None:
    ledger = trained_study.ledger()
    best = choose.best(trained_study, ledger)
    assert best.trial is ledger.ranked(trained_study.study().objective[0])[0]
    assert best.standing == "unconfirmed"
    bundle.export(best, tmp_path / "best")
    assert written(tmp_path / "best") == FILES
    card = (tmp_path / "best" / "README.md").read_text()
    assert "**Unconfirmed.**" in card and "the test split was not opened" in card
    value = best.trial.final["validation/worst_case/adversarial_accuracy"]
    assert re.search(rf"\| worst case \| {value:.3f} \[\d\.\d+, \d\.\d+\] \|", card)
    assert not re.search(r"\{\{|\{%|None|Interval", card), "the template is filled in"
    entry = json.loads((tmp_path / "best" / "robustbench.json").read_text())
    assert entry["clean_acc"] is None and entry["autoattack_acc"] is None, "of the test split, which is closed"
    assert entry["dataset"] == "digits" and entry["eps"] == "0.05"


def test_what_is_loaded_is_what_was_trained(trained_study: StudyFolder, tmp_path: Path) -> None:
    """The same logits to the last digit, and no data are needed."""
    chosen = choose.best(trained_study, trained_study.ledger())
    bundle.export(chosen, tmp_path / "best")
    config = validated(TrialConfig, chosen.trial.config, "the trial")
    trial = Trial(config)
    list(trial.run())
    trial.network.load_state_dict(trial.best_weights)
    trial.network.eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_DATA_DIR", str(tmp_path / "nowhere"))
        patch.setattr("sweep.datasets.digits.Digits.load", None)
        network = sweep.load(tmp_path / "best")
    assert not network.training
    images = trial.validation.pixels(slice(None))
    assert torch.equal(network(images), trial.network(images))
    takes = r"the network in .*best takes a tensor of images \[N, 1, 8, 8\], float32 in \[0, 1\]; it was given "
    for wrong, given in (
        (images.expand(-1, 3, -1, -1), r"\[100, 3, 8, 8\], float32"),
        (images[0], r"\[1, 8, 8\], float32"),
        ((255 * images[:2]).byte(), r"\[2, 1, 8, 8\], uint8"),
        (images.numpy(), "a ndarray"),
        (images.double(), r"\[100, 1, 8, 8\], float64"),
        (255 * images, r"\[100, 1, 8, 8\], float32 from 0 to 255: divide pixels of 0 to 255 by 255"),
        (images - 0.1, r"\[100, 1, 8, 8\], float32 from -0.1 to 0.9: .* clamp what noise took outside"),
        (images / images, r"\[100, 1, 8, 8\], float32, with NaN among them"),
    ):
        with pytest.raises(DataError, match=takes + given):
            network(wrong)
    with pytest.raises(DataError, match=r"float16 in \[0, 1\]; it was given \[2, 1, 8, 8\], float32"):
        network.half()(images[:2])


def test_what_cannot_be_loaded_is_a_sentence(trained_study: StudyFolder, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"there is no configuration at .*nowhere"):
        sweep.load("nowhere")
    bundle.export(choose.numbered(trained_study, trained_study.ledger(), 0), tmp_path / "zero")
    (tmp_path / "zero" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        sweep.load(str(tmp_path / "zero"))


def test_the_front_is_a_folder_for_each(trained_study: StudyFolder, tmp_path: Path) -> None:
    ledger = trained_study.ledger()
    front = choose.front(trained_study, ledger)
    wanted = pareto(ledger, [Maximize(METRIC), Maximize("validation/clean_accuracy")])
    assert {each.trial.number for each in front} == {trial.number for trial in wanted}
    bundle.export_front(front, tmp_path / "front")
    assert written(tmp_path / "front") == sorted(f"trial-{trial.number:04d}" for trial in wanted)
    assert all(written(folder) == FILES for folder in (tmp_path / "front").iterdir())
    bundle.export_front(front[:1], tmp_path / "front", force=True)
    assert written(tmp_path / "front") == [f"trial-{front[0].trial.number:04d}"]


def test_what_was_confirmed_is_its_first_seed(confirmed_study: StudyFolder, tmp_path: Path) -> None:
    chosen = choose.confirmed(confirmed_study, confirmed_study.ledger())
    confirming = StudyFolder.find(confirmed_study.path.parent, "tiny-confirmation")
    assert (chosen.folder.path, chosen.trial.number) == (confirming.path, 0), "no seed is chosen by its figures"
    bundle.export(chosen, tmp_path / "won")
    card = (tmp_path / "won" / "README.md").read_text()
    found = outcome(confirming)[0]
    assert "**Confirmed.**" in card and f"tiny, trial {found.number}" in card.splitlines()[0]
    files = [load_weights(confirming.trial(number) / "verdicts.safetensors") for number in (0, 1)]
    for row, label in (("clean", "clean"), ("fgsm", "fgsm"), ("worst_case", "worst case")):
        mean = np.mean([file[row].numpy() for file in files])
        assert re.search(rf"\| {label} \| {mean:.3f} \[", card)
    assert "the mean over 2 fresh seeds" in card and "The test split was opened once" in card
    entry = json.loads((tmp_path / "won" / "robustbench.json").read_text())
    assert entry["clean_acc"] == f"{100 * chosen.trial.final['test/clean_accuracy']:.2f}"
    assert entry["autoattack_acc"] is None, "fgsm is none"
    searched_best = choose.best(confirmed_study, confirmed_study.ledger())
    assert searched_best.standing.startswith("unconfirmed itself: of 2 fresh seeds")
    bundle.export(searched_best, tmp_path / "best")
    assert "this network's own figures are not" in (tmp_path / "best" / "README.md").read_text()


def card(chosen: Chosen, to: Path) -> str:
    bundle.export(chosen, to, force=True)
    return (to / "README.md").read_text()


def test_a_card_vouches_for_nothing_that_its_confirmation_disbelieved(
    confirmed_study: StudyFolder, tmp_path: Path
) -> None:
    chosen = choose.best(confirmed_study, confirmed_study.ledger())
    assert chosen.confirmation is not None
    doubted = replace(chosen.confirmation, found=[replace(chosen.confirmation.found[0], suspect=("V10",))])
    earlier = replace(chosen.confirmation, found=[], disbelieved={chosen.trial.number: ["V10"]})
    for confirmation in (doubted, earlier):
        text = card(replace(chosen, confirmation=confirmation), tmp_path / "doubted")
        assert "**Suspect.**" in text and "(V10)" in text and "is confirmed" not in text
        assert json.loads((tmp_path / "doubted" / "robustbench.json").read_text())["unreliable"] is True


def test_one_seed_of_two_confirms_nothing_yet(confirmed_study: StudyFolder, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "tiny")
    for name in ("tiny", "tiny-confirmation"):
        shutil.copytree(confirmed_study.path.parent / name, tmp_path / name)
    assert standing(folder).is_confirmed
    confirming = tmp_path / "tiny-confirmation"
    cut(confirming, [event for event, _ in told(confirming)].index("ended") + 1)
    assert not standing(folder).is_confirmed
    with pytest.raises(
        StudyError, match=r"trial \d is not confirmed: being confirmed: 1 of 2 seeds; `sweep resume tiny-"
    ):
        choose.confirmed(folder, folder.ledger())
    chosen = choose.numbered(StudyFolder(confirming), StudyFolder(confirming).ledger(), 0)
    assert not chosen.is_confirmed
    assert "**Not confirmed**: being confirmed: 1 of 2 seeds" in card(chosen, tmp_path / "won")
    best = card(choose.best(folder, folder.ledger()), tmp_path / "best")
    assert "1 of 2 seeds" in best and "is confirmed" not in best


def test_a_card_knows_of_every_opening(confirmed_study: StudyFolder, tmp_path: Path) -> None:
    chosen = choose.confirmed(confirmed_study, confirmed_study.ledger())
    assert chosen.confirmation is not None
    again = replace(chosen.confirmation, openings=("other", "tiny-confirmation"), history=["it was opened 2 times"])
    text = card(replace(chosen, confirmation=again), tmp_path / "again")
    assert "had been opened before" in text and "- It was opened 2 times." in text
    assert "nothing had touched" not in text and "nothing else" not in text


def test_nothing_is_confirmed_before_it_is(trained_study: StudyFolder, confirmed_study: StudyFolder) -> None:
    with pytest.raises(StudyError, match="`sweep confirm tiny` does so"):
        choose.confirmed(trained_study, trained_study.ledger())
    confirming = StudyFolder.find(confirmed_study.path.parent, "tiny-confirmation")
    for refused in (choose.best, choose.front, choose.confirmed):
        with pytest.raises(StudyError, match="luckiest seed: `sweep export tiny --confirmed`"):
            refused(confirming, confirming.ledger())


def test_a_suspect_is_no_front_and_no_best(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        for value, verdict in ((0.9, "suspect"), (0.4, "valid")):
            assignment = search.ask()
            assert assignment is not None
            search.started(assignment.number, "here", 1)
            report(search, assignment.number, 1, value)
            validity = {"verdict": verdict, "suspect": ["V4"], "investigate": [], "figures": {"V4": 1.0}}
            end: dict[str, Any] = {"end": "completed", "final": {}, "error": None, "validity": validity}
            search.hear({"trial": assignment.number, **end})
    folder = StudyFolder.find(tmp_path, "tiny")
    assert [each.trial.number for each in choose.front(folder, folder.ledger())] == [1]
    assert [each.trial.number for each in choose.front(folder, folder.ledger(), include_suspect=True)] == [0]
    assert choose.best(folder, folder.ledger()).trial.number == 1


def test_a_trial_without_its_files_is_not_exported(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        number = search.ask()
        assert number is not None
        report(search, 0, 1, 0.5)
        finish(search, 0)
    folder = StudyFolder.find(tmp_path, "tiny")
    with pytest.raises(StudyError, match=r"cannot be taken away: .*0000/config\.json.* is missing"):
        bundle.export(choose.best(folder, folder.ledger()), tmp_path / "best")
    assert written(tmp_path) == ["tiny"], "nothing is left of it"


def test_only_an_export_is_overwritten_and_only_by_request(trained_study: StudyFolder, tmp_path: Path) -> None:
    zero, one = (choose.numbered(trained_study, trained_study.ledger(), number) for number in (0, 1))
    bundle.export(zero, tmp_path / "kept")
    with pytest.raises(StudyError, match=r"holds an export already .* or --force"):
        bundle.export(one, tmp_path / "kept")
    bundle.export(one, tmp_path / "kept", force=True)
    assert json.loads((tmp_path / "kept" / "config.json").read_text()) == one.trial.config
    (tmp_path / "kept" / "thesis.tex").write_text("years of work")
    with pytest.raises(StudyError, match=r"holds what no export wrote \(thesis\.tex\)"):
        bundle.export(zero, tmp_path / "kept", force=True)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("years of work")
    with pytest.raises(StudyError, match=r"holds what no export wrote \(README\.md\)"):
        bundle.export(zero, tmp_path / "own", force=True)
    with pytest.raises(StudyError, match="is a file"):
        bundle.export(zero, tmp_path / "kept" / "thesis.tex", force=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "kept")
        with pytest.raises(StudyError, match="a folder of its own"):
            bundle.export(zero, Path(".."), force=True)
    assert written(tmp_path / "kept") == sorted([*FILES, "thesis.tex"])


def _killed_while_writing(path: Path) -> None:
    with folder_atomically(path) as folder:
        (folder / "config.json").write_text("{")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "best"
    for expected in ([], ["config.json"]):
        process = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(path,))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert (written(path) if path.exists() else []) == expected
        assert len(written(tmp_path)) > len(expected[:1]), "what it had begun lies beside it"
        with folder_atomically(path) as folder:
            (folder / "config.json").write_text("{}")
        assert written(tmp_path) == ["best"] and (path / "config.json").read_text() == "{}"


def test_two_writers_of_one_folder_leave_each_other_alone(tmp_path: Path) -> None:
    with folder_atomically(tmp_path / "best") as slow:
        (slow / "config.json").write_text("slow")
        with folder_atomically(tmp_path / "best") as quick:
            (quick / "config.json").write_text("quick")
        assert (slow / "config.json").read_text() == "slow"
    assert written(tmp_path) == ["best"] and (tmp_path / "best" / "config.json").read_text() == "slow"


def test_what_somebody_wrote_meanwhile_stays_unless_forced(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match="best was written meanwhile by somebody else"),
        folder_atomically(tmp_path / "best", over=False) as slow,
    ):
        (slow / "config.json").write_text("slow")
        with folder_atomically(tmp_path / "best", over=False) as quick:
            (quick / "config.json").write_text("quick")
    assert written(tmp_path) == ["best"] and (tmp_path / "best" / "config.json").read_text() == "quick"


def test_a_folder_that_cannot_be_written_is_named_by_its_own_name() -> None:
    with pytest.raises(CheckpointError, match=r"/proc/best cannot be written: "), folder_atomically(Path("/proc/best")):
        raise AssertionError("nothing is worked on before that is known")


def test_wilsons_interval_is_where_the_binomial_tails_are_as_it_says() -> None:
    interval = wilson(0.9, 1_000)
    assert interval.low < 0.9 < interval.high
    for bound, tail in (
        (interval.low, 1 - binom.cdf(899, 1_000, interval.low)),
        (interval.high, binom.cdf(900, 1_000, interval.high)),
    ):
        assert 0.018 < tail < 0.032, bound
    assert wilson(1.0, 10).high == 1 and wilson(1.0, 10).low < 0.8


def test_a_radius_is_written_as_people_do() -> None:
    assert [radius(8 / 255), radius(0.1), radius(0.5), radius(1.0)] == ["8/255", "0.1", "0.5", "1"]
