"""The autoencoder: trained before the network, on clean images; a part of the network's state, and attacked with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweep.attacks.base import cross_entropy, input_gradient
from sweep.checkpoint import load_weights
from sweep.configuration import TrialConfig
from sweep.datasets.digits import Digits
from sweep.defenses.adversarial_training import AdversarialTraining
from sweep.defenses.autoencoder_reconstruction import Autoencoder, AutoencoderReconstruction
from sweep.models.preprocessor import Chain
from sweep.registry import validated
from sweep.seeding import layer_randomness
from sweep.trial import Trial

TRAIN = Digits(validation_size=300, train_size=1_000).load().train


def autoencoder(passes: int = 8) -> Autoencoder:
    with layer_randomness(0, "test"):
        return Autoencoder(channels=1, sigma=0.2, width=8, bottleneck=8, passes=passes)


def error(model: Autoencoder, images: Tensor) -> float:
    with torch.no_grad():
        return float((model(images) - images).square().mean())


def test_it_learns_to_remove_noise_and_keeps_its_weights_to_itself() -> None:
    model, images = autoencoder(), TRAIN.pixels(slice(0, 200))
    before = error(model, images)
    assert model.prepare(TRAIN.pixels, len(TRAIN), seed=0) == 8 * len(TRAIN)
    noisy = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        denoised = (model(noisy) - images).square().mean().item()
    assert error(model, images) < before / 4
    assert denoised < 0.6 * (noisy - images).square().mean().item()
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_preparation_follows_the_seed_alone() -> None:
    first, again, other = (autoencoder(1) for _ in range(3))
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        torch.manual_seed(int(torch.randint(1_000, ())))
        model.prepare(TRAIN.pixels, len(TRAIN), seed)
    same, different = (
        [torch.equal(a, b) for a, b in zip(first.parameters(), model.parameters(), strict=True)]
        for model in (again, other)
    )
    assert all(same)
    assert not any(different)


def test_any_size_of_image_comes_back_as_it_was() -> None:
    model = Autoencoder(channels=3, sigma=0.1, width=4, bottleneck=2, passes=1)
    for size in ((8, 8), (7, 5), (1, 1)):
        restored = model(torch.rand(2, 3, *size))
        assert restored.shape == (2, 3, *size)
        assert 0 <= restored.min() <= restored.max() <= 1


def test_one_behind_another_is_prepared_on_what_the_first_gives() -> None:
    class Recorder(Autoencoder):
        def prepare(self, pixels: Any, size: int, seed: int) -> int:
            self.seen = pixels(torch.arange(3))
            return size

    first, second = autoencoder(), Recorder(1, 0.1, 4, 2, 1)
    chain = Chain(first, second)
    assert chain.prepare(TRAIN.pixels, 100, seed=0) == 8 * 100 + 100
    assert torch.equal(second.seen, first(TRAIN.pixels(slice(0, 3))))


def config() -> TrialConfig:
    defense = {"name": "autoencoder_reconstruction", "width": 4, "bottleneck": 4, "passes": 2}
    inner = {"name": "adversarial_training", "epsilon": 0.1, "attack": {"name": "pgd", "num_steps": 1}}
    given = {
        "dataset": {"name": "digits", "train_size": 200, "validation_size": 60},
        "model": {"name": "small_cnn", "width": 4},
        "threat_model": {"name": "linf", "epsilon": 0.1},
        "defense": defense | {"training": inner},
        "validation_attacks": [{"name": "pgd", "num_steps": 3}],
        "objective": [{"metric": "validation/pgd_3/adversarial_accuracy"}],
        "epochs": 2,
    }
    return validated(TrialConfig, given, "trial")


def test_its_weights_are_resumed_exported_and_attacked_with_the_network(tmp_path: Path) -> None:
    begun = Trial(config(), tmp_path)
    untrained = begun.network.preprocess.layers[0].weight.clone()  # type: ignore[union-attr]
    first = next(begun.run())
    trained = {name: value.clone() for name, value in begun.network.state_dict().items() if "preprocess" in name}
    assert not torch.equal(trained["preprocess.layers.0.weight"], untrained)
    resumed = Trial(config(), tmp_path)
    (second,) = resumed.run(reported=1)
    figures = resumed.finish()
    assert all(torch.equal(resumed.network.state_dict()[name], value) for name, value in trained.items())
    exported = load_weights(tmp_path / "best.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in trained.items())
    assert 0 <= figures["validation/pgd_3_naive/adversarial_accuracy"] <= 1
    assert first.metrics["gradient_evaluations"] == (2 + 2) * 200, "two passes of its own, then an epoch of two"
    assert second.metrics["gradient_evaluations"] == (2 + 2 + 2) * 200
    _, gradient = input_gradient(resumed.network, TRAIN.pixels(slice(0, 5)), TRAIN.labels[:5], cross_entropy)
    assert gradient.abs().amax((1, 2, 3)).min() > 0


def test_what_it_costs_is_declared() -> None:
    defense = AutoencoderReconstruction(passes=4, training=AutoencoderReconstruction(passes=3))
    assert defense.preparation == 7
    assert AutoencoderReconstruction(training=AdversarialTraining(epsilon=0.1)).gradient_evaluations == 8
