"""A trial is its configuration and its seed: alone, resumed, or run again, it is the same to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from sweep.checkpoint import load, load_weights, save
from sweep.configuration import TrialConfig
from sweep.errors import ConfigurationError, Diverged
from sweep.models.batch_norm import SplitBatchNorm2d
from sweep.objective import Goal
from sweep.registry import KINDS, validated
from sweep.training import EpochResult
from sweep.trial import Trial

TIMINGS = ("seconds", "validation/seconds", "peak_memory_mb")
BASE: dict[str, Any] = {
    "dataset": {"name": "digits", "train_size": 70, "validation_size": 40},
    "model": {"name": "small_cnn", "width": 4},
    "threat_model": {"name": "linf", "epsilon": 0.1},
    "defense": "standard",
    "epochs": 3,
    "batch_size": 32,
    "validation_attacks": [{"name": "pgd", "num_steps": 2}],
    "objective": [{"metric": "validation/pgd_2/adversarial_accuracy"}],
}
PGD = {"name": "pgd", "num_steps": 2}
RESNET: dict[str, Any] = {"model": {"name": "resnet18", "width": 4}, "optimizer": "adamw"}


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


def config(**fields: Any) -> TrialConfig:
    return validated(TrialConfig, BASE | fields, "test")


def required(name: str) -> dict[str, Any]:
    """A defense with what it requires, its inner attack made cheap."""
    fields = KINDS["defense"][name].model_fields
    given = {key: 0.1 for key, field in fields.items() if field.is_required()}
    return {"name": name, **given, **({"attack": PGD} if "attack" in fields else {})}


def comparable(results: list[EpochResult]) -> list[dict[str, float]]:
    return [{key: value for key, value in result.metrics.items() if key not in TIMINGS} for result in results]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one level, so that two states are compared entry by entry."""
    if isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, child in entries for key, leaf in flat(child, f"{prefix}/{name}").items()}
    return {prefix: value}


def assert_identical(first: Any, second: Any) -> None:
    one, other = flat(first), flat(second)
    assert one.keys() == other.keys()
    for key, value in one.items():
        same = torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]
        assert same, f"{key}: {value} is not {other[key]}"


def assert_same_state(first: Trial, second: Trial) -> None:
    assert_identical(first.network.state_dict(), second.network.state_dict())
    assert_identical(first.plan.optimizer.state_dict(), second.plan.optimizer.state_dict())
    assert_identical(first.best_weights, second.best_weights)
    assert_identical(comparable(first.results), comparable(second.results))
    assert first.state.gradient_evaluations == second.state.gradient_evaluations


def assert_same_trial(first: Trial, second: Trial) -> None:
    assert_same_state(first, second)
    assert_identical(first.finish(), second.finish())


# --- resumed is run through


CASES: dict[str, dict[str, Any]] = {name: {"defense": required(name)} for name in KINDS["defense"]} | {
    "adamw": {"defense": required("adversarial_training"), "optimizer": "adamw"},
    "batch_norm": RESNET | {"defense": required("trades")},
    "split_batch_norm": RESNET | {"defense": required("hybrid") | {"split_batch_norm": True, "batch_norm": "train"}},
    "union_by_epoch": {"defense": required("hybrid") | {"batch_mode": "union", "examples": "epoch"}},
    "adaptive": {
        "defense": required("adversarial_training")
        | {"epsilon_schedule": {"name": "adaptive", "start": 0.2, "threshold": 0.05}},
        "learning_rate_schedule": {"name": "cosine", "start": 1.0, "end": 0.0},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_trial_ends_as_one_that_ran_through(case: str, tmp_path: Path) -> None:
    chosen = config(**{"augmentation": "crop_flip"} | CASES[case])
    straight = Trial(chosen)
    list(straight.run())
    for stop_after in (1, 2):
        killed = Trial(chosen, tmp_path / str(stop_after))
        told = list(islice(killed.run(), stop_after))
        resumed = Trial(chosen, tmp_path / str(stop_after))
        assert resumed.state.epoch == stop_after
        told += resumed.run(reported=stop_after)
        assert [result.epoch for result in told] == [1, 2, 3]
        assert_identical(comparable(told), comparable(straight.results))
        assert_same_state(straight, resumed)
    assert_same_trial(straight, resumed)


def test_epochs_that_nobody_heard_of_are_told_again(tmp_path: Path) -> None:
    """The checkpoint comes first: whoever ran the trial may have died before it passed a result on."""
    first = list(Trial(config(), tmp_path).run())
    again = Trial(config(), tmp_path)
    assert_identical([result.metrics for result in again.run(reported=1)], [result.metrics for result in first[1:]])
    assert list(again.run(reported=3)) == []


def test_epochs_without_a_checkpoint_are_trained_again_and_not_told_twice(tmp_path: Path) -> None:
    straight = Trial(config(epochs=4))
    list(straight.run())
    list(islice(Trial(config(epochs=4), tmp_path, checkpoint_seconds=1e6).run(), 3))
    resumed = Trial(config(epochs=4), tmp_path, checkpoint_seconds=1e6)
    assert resumed.state.epoch == 0, "no checkpoint was due in a million seconds"
    assert [result.epoch for result in resumed.run(reported=3)] == [4]
    assert_same_trial(straight, resumed)
    assert Trial(config(epochs=4), tmp_path).state.epoch == 4, "the last epoch is always saved"


def test_another_configuration_s_files_are_set_aside_whole(tmp_path: Path) -> None:
    folder, other = tmp_path / "0007", config(batch_size=16)
    list(islice(Trial(config(), folder).run(), 1))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    trial = Trial(other, folder)
    assert trial.note == f"{folder} held another configuration's files, which are now in {folder}.set-aside-1"
    assert {path.name: path.read_bytes() for path in (tmp_path / "0007.set-aside-1").iterdir()} == before
    assert trial.results == [] and json.loads((folder / "config.json").read_text()) == other.to_json()
    (folder / "config.json").write_text("{")  # nor is what no trial wrote
    assert "0007.set-aside-2" in str(Trial(other, folder).note)
    assert Trial(other, folder).note is None


def damaged(checkpoint: Path, how: str) -> None:
    whole = bytearray(checkpoint.read_bytes())
    if how == "garbage":
        checkpoint.write_bytes(b"\x80\x04 neither a pickle nor an archive")
    elif how == "truncated":
        checkpoint.write_bytes(whole[: len(whole) // 2])
    elif how == "one bit":  # of the weights, which torch's reader would not notice
        whole[len(whole) // 2] ^= 1
        checkpoint.write_bytes(whole)
    else:
        state = load(checkpoint)
        changes: dict[str, dict[str, Any]] = {
            "another configuration's": {"fingerprint": "0" * 12},
            "of another network": {"network": {}},
            "another program's": {"results": [{"steps": 1}]},
        }
        save(checkpoint, state | changes[how])


@pytest.mark.parametrize(
    "how",
    [
        "garbage",
        "truncated",
        "one bit",
        "another configuration's",
        "of another network",
        "another program's",
        "a folder",
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_set_aside_and_the_figures_are_the_same(tmp_path: Path, how: str) -> None:
    straight = Trial(config())
    list(straight.run())
    list(islice(Trial(config(), tmp_path).run(), 2))
    if how == "a folder":
        (tmp_path / "checkpoint.pt").unlink()
        (tmp_path / "checkpoint.pt").mkdir()
    else:
        damaged(tmp_path / "checkpoint.pt", how)
    again = Trial(config(), tmp_path)
    assert str(tmp_path / "checkpoint.pt") in str(again.note)
    assert str(again.note).endswith("it is now checkpoint.pt.set-aside-1, and the trial begins anew")
    assert (tmp_path / "checkpoint.pt.set-aside-1").exists()
    told = list(again.run(reported=2))
    assert [result.epoch for result in told] == [3], "what is known is not given twice"
    assert_same_trial(straight, again)
    assert Trial(config(), tmp_path).note is None


# --- its configuration and its seed


def test_the_same_seed_is_the_same_trial_and_another_is_not() -> None:
    first, again, other = Trial(config()), Trial(config()), Trial(config(seed=1))
    torch.manual_seed(99)  # what a neighbour does to the global stream is nothing to it
    for trial in (first, again, other):
        list(trial.run())
        torch.rand(3)
    assert_same_trial(first, again)
    differing = [
        key
        for key, value in first.network.state_dict().items()
        if not torch.equal(value, other.network.state_dict()[key])
    ]
    assert len(differing) == len(list(first.network.parameters()))
    assert torch.equal(first.validation.images, other.validation.images), "all are judged on the same images"


def test_an_attack_that_two_classes_cannot_answer_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), "red").save(tmp_path / "pets" / "train" / name / f"{number}.png")
    pets = {"name": "image_folder", "folder": str(tmp_path / "pets"), "size": 8, "validation_size": 2}
    with pytest.raises(ConfigurationError, match="apgd_100_dlr needs at least 3 classes, and image_folder has 2"):
        Trial(config(dataset=pets, final_attacks=[{"name": "apgd", "loss": "dlr"}]))
    Trial(config(dataset=pets, final_attacks=["auto_attack"]))


def test_threads_are_the_configuration_s() -> None:
    for threads in (2, 1):
        Trial(config(threads=threads))
        assert torch.get_num_threads() == threads


def test_the_global_stream_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    list(Trial(config(defense=required("hybrid"))).run())
    assert torch.equal(torch.rand(4), expected)


def test_a_squeezed_network_with_split_batch_norm_has_both(tmp_path: Path) -> None:
    inner = required("hybrid") | {"split_batch_norm": True}
    trial = Trial(config(**RESNET, defense={"name": "feature_squeezing", "bit_depth": 1, "training": inner}))
    assert any(isinstance(module, SplitBatchNorm2d) for module in trial.network.modules())
    images = trial.validation.pixels(slice(0, 4))
    trial.network.eval()
    assert torch.equal(trial.network(images), trial.network(images.round()))


# --- what it leaves behind


@pytest.mark.parametrize(
    ("direction", "select", "best", "counts"),
    [("minimize", "best", 1, 1), ("minimize", "last", 1, 3), ("maximize", "best", 3, 3)],
)
def test_best_and_last_epoch_are_both_kept(direction: str, select: str, best: int, counts: int, tmp_path: Path) -> None:
    """Gradient evaluations only grow, so the least of them is the first epoch's."""
    goal = Goal.model_validate({"metric": "gradient_evaluations", "direction": direction})
    trial = Trial(config(objective=[goal], select=select), tmp_path)
    weights = [{key: value.clone() for key, value in trial.network.state_dict().items()} for _ in trial.run()]
    figures = trial.finish()
    assert trial.selected.epoch == counts
    assert_identical(load_weights(tmp_path / "best.safetensors"), weights[best - 1])
    assert_identical(load_weights(tmp_path / "last.safetensors"), weights[-1])
    assert_identical(trial.network.state_dict(), weights[-1])
    kept = json.loads((tmp_path / "metrics.json").read_text())
    assert (kept["selected_epoch"], kept["fingerprint"]) == (counts, trial.config.fingerprint)
    assert kept["final"] == figures
    for name in ("clean_accuracy", "pgd_2/adversarial_accuracy"):  # judged again, the selected network is the same
        assert figures[f"validation/{name}"] == trial.results[counts - 1].metrics[f"validation/{name}"]


def test_the_final_figures(tmp_path: Path) -> None:
    trial = Trial(config(defense=required("adversarial_training"), final_attacks=["fgsm", "cw_pgd"]), tmp_path)
    list(trial.run())
    figures = trial.finish()
    worst = figures["validation/worst_case/adversarial_accuracy"]
    for label in ("pgd_2", "fgsm", "cw_pgd_40"):
        assert worst <= figures[f"validation/{label}/adversarial_accuracy"] <= figures["validation/clean_accuracy"]
    assert figures["validation/worst_case/robustness_gap"] == figures["validation/clean_accuracy"] - worst
    assert figures["validation/mixed_50/accuracy"] == pytest.approx((figures["validation/clean_accuracy"] + worst) / 2)
    assert figures["overhead/gradient_evaluations"] == 3.0, "two steps of the attack and one of training"
    assert all(math.isfinite(value) for value in figures.values())


def test_an_epoch_between_validations_can_be_the_best_of_nothing_measured_yet() -> None:
    trial = Trial(config(epochs=5, validate_every=2))
    measured = ["validation/clean_accuracy" in result.metrics for result in trial.run()]
    assert measured == [False, True, False, True, True]
    assert trial.selected.epoch in (2, 4, 5)


def test_final_figures_that_are_not_finite_are_a_divergence(tmp_path: Path) -> None:
    trial = Trial(config(), tmp_path)
    list(trial.run())
    for weights in trial.best_weights.values():
        weights.mul_(1e30)
    with pytest.raises(Diverged, match=r"not finite when attacked at the end: .*negative_log_likelihood"):
        trial.finish()
    assert not (tmp_path / "metrics.json").exists()
