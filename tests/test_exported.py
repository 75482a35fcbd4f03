"""An exported network: read again with its weights, for the images of whoever it attacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sweep.checkpoint import save_weights, write_json
from sweep.configuration import TrialConfig
from sweep.datasets import Splits
from sweep.errors import CheckpointError, ConfigurationError, StudyError
from sweep.evaluation import predict
from sweep.exported import Transferred, judge_transfer, load, load_network
from sweep.registry import validated
from sweep.trial import Trial


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    config = {
        "dataset": {"name": "digits", "train_size": 100, "validation_size": 40},
        "model": {"name": "small_cnn", "width": 4},
        "threat_model": {"name": "linf", "epsilon": 0.1},
        "defense": "standard",
        "epochs": 1,
    }
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        trial = Trial(validated(TrialConfig, config, "test"))
        list(trial.run())
        yield trial
    torch.set_num_threads(threads)


@pytest.fixture
def export(trained: Trial, tmp_path: Path) -> Path:
    write_json(tmp_path / "config.json", trained.config.to_json())
    save_weights(tmp_path / "model.safetensors", trained.network.state_dict())
    return tmp_path


def splits(trained: Trial, classes: int = 10) -> Splits:
    return Splits(trained.plan.train, trained.validation, classes)


def test_an_exported_network_gives_the_logits_that_it_gave(trained: Trial, export: Path) -> None:
    loaded = load_network(export, splits(trained))
    assert not loaded.training
    assert torch.equal(predict(loaded, trained.validation), predict(trained.network, trained.validation))


def test_weights_that_do_not_fit_are_answered_with_what_does_not(trained: Trial, export: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit the small_cnn .* images of 1 x 8 x 8 and 7 classes: .*10"):
        load_network(export, splits(trained, classes=7))


def test_what_is_absent_or_wrong_in_the_folder_is_said(trained: Trial, export: Path) -> None:
    config = json.loads((export / "config.json").read_text())
    write_json(export / "config.json", config | {"model": "small_cn"})
    with pytest.raises(ConfigurationError, match="did you mean 'small_cnn'"):
        load_network(export, splits(trained))
    write_json(export / "config.json", config)
    (export / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="there are no weights at"):
        load_network(export, splits(trained))
    with pytest.raises(StudyError, match="there is no configuration at"):
        load_network(export / "absent", splits(trained))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_a_look_at_the_pixels_hinders_nobody(trained: Trial, export: Path) -> None:
    """Not who takes gradients of any kind, shortens floats or gives none, and not who traces or compiles."""
    network, images = load(export), trained.validation.pixels(slice(4))

    def loss(pixels: Tensor) -> Tensor:
        logits: Tensor = network(images=pixels)
        return logits.square().sum()

    (wanted,) = torch.autograd.grad(trained.network(attacked := images.requires_grad_()).square().sum(), attacked)
    each = torch.func.vmap(torch.func.grad(lambda image: loss(image[None])))(images.detach())
    for found in (torch.autograd.grad(loss(images), images)[0], torch.func.grad(loss)(images), each):
        torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        logits = network(images)
        torch.testing.assert_close(network(images.half()), logits, rtol=0.01, atol=0.01)
        assert torch.equal(torch.compile(network, backend="eager", fullgraph=True)(images), logits)
        traced = torch.jit.trace(network, images)  # type: ignore[no-untyped-call]  # it warns of looks, an error here
        assert torch.equal(traced(images), logits)
        assert network(images[:0]).shape == (0, 10)


def test_made_on_the_target_itself_it_is_the_white_box_attack(trained: Trial, export: Path) -> None:
    own = judge_transfer(export, [export], {"name": "pgd", "num_steps": 2, "random_start": "none"})
    (black_box,) = own.black_box.values()
    assert own.attack == "pgd_2_image_start"
    assert (own.white_box <= black_box).all(), "which also stops at the first success of its path"
    assert (black_box <= own.clean).all()
    assert judge_transfer(export, [export]).attack == trained.config.validation_attacks[0].label


def test_what_the_white_box_attack_missed_is_counted_once_however_many_sources_find_it() -> None:
    held = {"a": torch.tensor([False, True, False, True]), "b": torch.tensor([False, False, True, True])}
    transferred = Transferred("pgd_10", torch.ones(4).bool(), torch.tensor([False, True, True, True]), held)
    assert transferred.missed.tolist() == [False, True, True, False]


def test_an_attack_that_cannot_be_transferred_is_a_sentence(export: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'pgd'"):
        judge_transfer(export, [export], "pgdd")
    with pytest.raises(ConfigurationError, match="carlini_l2 means nothing under linf"):
        judge_transfer(export, [export], "carlini_l2")
