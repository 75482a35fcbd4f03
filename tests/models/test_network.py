from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweep.models.lenet5 import LeNet5
from sweep.models.network import Network, crafting, viewed

IMAGES = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6)


def lenet(activation: str = "relu") -> Network:
    model = LeNet5.model_validate({"variant": "lecun1998", "activation": activation})
    return Network(model.build(1, (12, 12), 10), [0.5], [0.25])


def normed() -> Network:
    """Batch norm, dropout, one frozen layer, and one module in a mode of its own."""
    core = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(400, 10)
    )
    network = Network(core, [0.5], [0.25])
    core[0].requires_grad_(False)
    core[4].eval()
    return network


def loss(network: Network, images: Tensor) -> Tensor:
    return cross_entropy(network(images), LABELS, reduction="sum")


# --- what is computed


def test_preprocess_then_normalise_by_hand() -> None:
    network = Network(nn.Flatten(), [0.5, 0.25], [0.5, 0.125], preprocess=lambda images: 1 - images)
    logits = network(torch.tensor([[[[0.25]], [[0.5]]]]))  # (0.75 - 0.5) / 0.5 and (0.5 - 0.25) / 0.125
    assert logits.tolist() == [[0.5, 2.0]]


def test_layout_is_channels_last_and_changes_no_value() -> None:
    core = LeNet5(variant="madry").build(3, (12, 12), 10).double()
    plain = deepcopy(core)
    network = Network(core, [0.5] * 3, [0.25] * 3).double()
    seen: list[Tensor] = []
    core.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    images = torch.rand(5, 3, 12, 12, dtype=torch.float64)
    assert torch.allclose(network(images), plain((images - 0.5) / 0.25), rtol=0, atol=1e-12)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    weights = [parameter for parameter in core.parameters() if parameter.dim() == 4]
    assert len(weights) == 2
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_bfloat16_gives_float32_logits_and_gradients() -> None:
    exact = lenet()
    coarse = Network(exact.core, [0.5], [0.25], precision="bfloat16")
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(coarse, images), images)
    logits = coarse(IMAGES)
    assert logits.dtype == gradient.dtype == torch.float32
    assert not torch.equal(logits, exact(IMAGES))
    assert torch.allclose(logits, exact(IMAGES), atol=0.02)
    assert coarse.gradient_evaluations == len(IMAGES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # torch's, of its own doing
def test_training_alone_is_compiled() -> None:
    """The judge's passes stay the same bits; a checkpoint's names stay the same."""
    torch._dynamo.utils.counters.clear()  # of what other tests compiled
    eager = lenet()
    compiled = Network(eager.core, [0.5], [0.25], compiles=True)
    assert list(compiled.state_dict()) == list(eager.state_dict())
    assert torch.equal(compiled(IMAGES), eager(IMAGES))
    assert not torch._dynamo.utils.counters["stats"]
    images = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(eager, images), images)
    with viewed(compiled, "training"):
        (found,) = torch.autograd.grad(loss(compiled, images), images)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(found, expected)
    assert compiled.gradient_evaluations == len(IMAGES)


def test_normalisation_is_saved_and_the_count_is_not() -> None:
    network = lenet()
    saved = network.state_dict()
    assert {"mean", "std"} < saved.keys()
    assert not any("gradient" in key for key in saved)


# --- the counting contract


def training_step(network: Network) -> None:
    torch.autograd.backward(loss(network, IMAGES))


def three_attack_steps(network: Network) -> None:
    with crafting(network, "eval"):
        for _ in range(3):
            points = IMAGES.clone().requires_grad_()
            torch.autograd.grad(loss(network, points), points)


def one_loss_over_clean_and_adversarial(network: Network) -> None:
    torch.autograd.backward(loss(network, IMAGES) + loss(network, IMAGES.flip(0)))


def backward_twice(network: Network) -> None:
    value = loss(network, IMAGES)
    torch.autograd.backward(value, retain_graph=True)
    torch.autograd.backward(value)


def gradient_penalty(network: Network) -> None:
    points = IMAGES.clone().requires_grad_()
    value = loss(network, points)
    (gradient,) = torch.autograd.grad(value, points, create_graph=True)
    torch.autograd.backward(value + gradient.square().sum())


def penalty_of_linear_objective(network: Network) -> None:
    points = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(points)[:, 0].sum(), points, create_graph=True)
    torch.autograd.backward(gradient.square().sum())


def forward_only(network: Network) -> None:
    network(IMAGES)
    with torch.no_grad():
        network(IMAGES)


def gradient_that_ends_at_the_logits(network: Network) -> None:
    logits = network(IMAGES)
    torch.autograd.grad(cross_entropy(logits, LABELS), logits)


@pytest.mark.parametrize(
    ("work", "passes"),
    [
        (training_step, 1),
        (three_attack_steps, 3),
        (one_loss_over_clean_and_adversarial, 2),
        (backward_twice, 2),
        (gradient_penalty, 2),
        (penalty_of_linear_objective, 1),
        (forward_only, 0),
        (gradient_that_ends_at_the_logits, 0),
    ],
)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_count(work: Callable[[Network], None], passes: int, activation: str) -> None:
    network = lenet(activation)
    network.gradient_evaluations = 100  # as a resumed trial sets it
    work(network)
    assert network.gradient_evaluations == 100 + passes * len(IMAGES)


# --- crafting


def flags(network: Network) -> tuple[list[bool], list[bool], list[bool]]:
    modules, parameters = list(network.modules()), list(network.parameters())
    norms = [module.track_running_stats for module in modules if isinstance(module, nn.BatchNorm2d)]
    return [module.training for module in modules], [parameter.requires_grad for parameter in parameters], norms


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_crafting_sets_and_restores_every_flag(mode: str) -> None:
    network = normed()
    before = flags(network)
    assert {len(set(values)) for values in before[:2]} == {2}, "the test needs mixed flags"
    with crafting(network, "train" if mode == "train" else "eval"):
        training, wanting, _ = flags(network)
        assert set(training) == {mode == "train"}
        assert set(wanting) == {False}
    assert flags(network) == before


def test_crafting_restores_after_an_exception_and_when_nested() -> None:
    network = normed()
    before = flags(network)
    with pytest.raises(KeyError), crafting(network, "train"):
        outer = flags(network)
        with crafting(network, "eval"):
            network(torch.rand(6, 1, 12, 12))
        assert flags(network) == outer
        raise KeyError
    assert flags(network) == before


@pytest.mark.parametrize("scale", [1.0, float("inf")])
def test_crafting_in_train_mode_uses_the_batch_and_leaves_running_statistics(scale: float) -> None:
    network = normed()
    norm = network.core.get_submodule("1")
    outputs: list[Tensor] = []
    norm.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with crafting(network, "train"):
        network(IMAGES * scale)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    if scale == 1:
        assert torch.allclose(outputs[0].mean((0, 2, 3)), torch.zeros(4), atol=1e-5)
    network.train()(IMAGES)
    assert not torch.equal(network.state_dict()["core.1.running_mean"], before["core.1.running_mean"])


def test_crafting_gives_the_same_input_gradient() -> None:
    network = lenet()
    points = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(network, points), points)
    with crafting(network, "eval"):
        (gradient,) = torch.autograd.grad(loss(network, points), points)
    assert torch.equal(gradient, expected)
    assert all(parameter.grad is None for parameter in network.parameters())
