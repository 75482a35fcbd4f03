from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sweep.errors import ConfigurationError
from sweep.models.lenet5 import LeNet5, Variant
from sweep.models.network import Network, crafting

PARAMETERS: dict[Variant, int] = {
    "lecun1998": (25 * 6 + 6) + (25 * 6 * 16 + 16) + (400 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10),
    "madry": (25 * 32 + 32) + (25 * 32 * 64 + 64) + (49 * 64 * 1024 + 1024) + (1024 * 10 + 10),
    "advertorch": (9 * 32 + 32) + (9 * 32 * 64 + 64) + (49 * 64 * 200 + 200) + (200 * 10 + 10),
    "fast_adversarial": (16 * 16 + 16) + (16 * 16 * 32 + 32) + (49 * 32 * 100 + 100) + (100 * 10 + 10),
}
ADVERTORCH_KEYS = {
    "conv1.weight": "conv1.weight",
    "conv1.bias": "conv1.bias",
    "conv2.weight": "conv2.weight",
    "conv2.bias": "conv2.bias",
    "linear1.weight": "linear1.weight",
    "linear1.bias": "linear1.bias",
    "linear2.weight": "linear2.weight",
    "linear2.bias": "linear2.bias",
}
SEQUENTIAL_KEYS = {
    f"{position}.{kind}": f"{layer}.{kind}"
    for position, layer in [("0", "conv1"), ("2", "conv2"), ("5", "linear1"), ("7", "linear2")]
    for kind in ("weight", "bias")
}


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameter_count_by_hand(variant: Variant) -> None:
    core = LeNet5(variant=variant).build(1, (28, 28), 10)
    assert sum(parameter.numel() for parameter in core.parameters()) == PARAMETERS[variant]


def test_lecun1998_has_the_known_61706_parameters() -> None:
    assert PARAMETERS["lecun1998"] == 61_706


@pytest.mark.parametrize("variant", PARAMETERS)
@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (32, 32)), (2, (17, 30))])
def test_any_size_and_channels(variant: Variant, channels: int, size: tuple[int, int]) -> None:
    core = LeNet5(variant=variant).build(channels, size, 7)
    assert core(torch.rand(3, channels, *size)).shape == (3, 7)


@pytest.mark.parametrize(
    ("variant", "smallest"), [("lecun1998", 12), ("madry", 4), ("advertorch", 4), ("fast_adversarial", 4)]
)
def test_images_too_small_are_refused_with_the_smallest_size(variant: Variant, smallest: int) -> None:
    model = LeNet5(variant=variant)
    assert model.build(1, (smallest, smallest), 10)(torch.rand(2, 1, smallest, smallest)).shape == (2, 10)
    with pytest.raises(ConfigurationError, match=f"images of {smallest - 1}x{smallest} .* need {smallest}x{smallest}"):
        model.build(1, (smallest - 1, smallest), 10)


def test_activation_is_the_named_one_everywhere() -> None:
    core = LeNet5(variant="lecun1998", activation="tanh").build(1, (28, 28), 10)
    assert sum(isinstance(module, nn.Tanh) for module in core.modules()) == 4
    assert not any(isinstance(module, nn.ReLU) for module in core.modules())


def test_advertorch_weights_reach_their_published_accuracy_on_mnist() -> None:
    data = _data()
    core = LeNet5(variant="advertorch").build(1, (28, 28), 10)
    _load(core, data / "models" / "advertorch_mnist_lenet5_advtrained.pt", ADVERTORCH_KEYS)
    images = _idx(data / "mnist" / "t10k-images-idx3-ubyte.gz", 16).view(10_000, 1, 28, 28)
    labels = _idx(data / "mnist" / "t10k-labels-idx1-ubyte.gz", 8)
    assert _accuracy(Network(core, [0.0], [1.0]), images, labels) == 0.9864


def test_alpha_beta_crown_cifar_weights_reach_their_measured_accuracy() -> None:
    data = _data()
    core = LeNet5(variant="fast_adversarial").build(3, (32, 32), 10)
    _load(core, data / "models" / "abcrown_cifar_cnn_a_adv.model", SEQUENTIAL_KEYS)
    with np.load(data / "cifar10" / "cifar10_lossless_subset.npz") as subset:
        images = torch.from_numpy(subset["test_x"]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(subset["test_y"])
    network = Network(core, [0.4914, 0.4824, 0.4467], [0.2471, 0.2435, 0.2616])
    assert _accuracy(network, images, labels) == pytest.approx(0.664, abs=0.0015)


def _data() -> Path:
    folder = Path(os.environ.get("SWEEP_DATA_DIR", Path(__file__).parents[2] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: set SWEEP_DATA_DIR, or put it in {folder}")
    return folder


def _load(core: nn.Module, path: Path, keys: dict[str, str]) -> None:
    published = torch.load(path, map_location="cpu", weights_only=True)
    core.load_state_dict({keys[key]: tensor for key, tensor in published.items()})


def _idx(path: Path, header: int) -> Tensor:
    with gzip.open(path) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())


def _accuracy(network: Network, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad(), crafting(network, "eval"):
        batches = (images[start : start + 500].float() / 255 for start in range(0, len(images), 500))
        guesses = torch.cat([network(batch).argmax(1) for batch in batches])
    return (guesses == labels).sum().item() / len(labels)


def test_a_network_gives_what_its_layers_give_as_users_write_them() -> None:
    """Convolution, ReLU, pool: one after the other, against pooling first, in the convolution's layer."""
    torch.manual_seed(0)
    fast = LeNet5(variant="lecun1998").build(1, (28, 28), 10).double()
    parts = dict(fast.named_children())
    written: list[nn.Module] = []
    for name, layer in parts.items():
        if isinstance(layer, nn.Conv2d):
            written.append(nn.Conv2d(layer.in_channels, layer.out_channels, 5, padding=layer.padding).double())  # type: ignore[arg-type]
            written[-1].load_state_dict(layer.state_dict())
        elif name.startswith("conv"):
            written += [nn.ReLU(), nn.MaxPool2d(2)]
        else:
            written.append(layer)
    images = torch.rand(32, 1, 28, 28, dtype=torch.float64)
    found = []
    for network in (fast, nn.Sequential(*written)):
        network.zero_grad()
        attacked = images.clone().requires_grad_(True)
        logits = network(attacked)
        nn.functional.cross_entropy(logits, torch.arange(32) % 10).backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
        assert len(gradients) == 10 and attacked.grad is not None
        found.append([logits.detach(), attacked.grad, *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
