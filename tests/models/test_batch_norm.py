from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sweep.models.batch_norm import SplitBatchNorm2d, Statistics, split_batch_norm, use_statistics
from sweep.models.lenet5 import LeNet5
from sweep.models.network import Network, crafting
from sweep.models.resnet18 import ResNet18


def resnet() -> nn.Module:
    return split_batch_norm(ResNet18(width=2).build(1, (8, 8), 10))


def halves(core: nn.Module, which: Statistics) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in core.state_dict().items() if f".{which}." in key}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_every_batch_norm_is_split_and_both_halves_begin_alike() -> None:
    core = resnet()
    plain = sum(isinstance(module, nn.BatchNorm2d) for module in ResNet18(width=2).build(1, (8, 8), 10).modules())
    assert sum(isinstance(module, SplitBatchNorm2d) for module in core.modules()) == plain == 20
    assert sum(isinstance(module, nn.BatchNorm2d) for module in core.modules()) == 2 * plain
    core.eval()
    images = torch.rand(4, 1, 8, 8)
    clean = core(images)
    with use_statistics(core, "adversarial"):
        assert torch.equal(core(images), clean)


@pytest.mark.parametrize(("used", "other"), [("clean", "adversarial"), ("adversarial", "clean")])
def test_a_training_batch_moves_one_half_only(used: Statistics, other: Statistics) -> None:
    core = resnet()
    before = {which: halves(core, which) for which in (used, other)}
    with use_statistics(core, used):
        logits = core(torch.rand(4, 1, 8, 8))
    torch.autograd.backward(logits.square().sum())
    assert same(halves(core, other), before[other])
    assert not same(halves(core, used), before[used])
    wanted = {name for name, parameter in core.named_parameters() if parameter.grad is not None}
    assert not any(f".{other}." in name for name in wanted)
    assert any(f".{used}." in name for name in wanted)


def test_clean_statistics_are_the_default_and_come_back_after_an_exception() -> None:
    core = resnet()
    split = [module for module in core.modules() if isinstance(module, SplitBatchNorm2d)]
    with pytest.raises(KeyError), use_statistics(core, "adversarial"):
        assert {module.statistics for module in split} == {"adversarial"}
        raise KeyError
    assert {module.statistics for module in split} == {"clean"}


def test_evaluation_follows_the_clean_statistics() -> None:
    core = resnet()
    core(torch.rand(16, 1, 8, 8))
    core.eval()
    images = torch.rand(4, 1, 8, 8)
    expected = core(images)
    for key, tensor in core.state_dict().items():
        if ".adversarial." in key and tensor.is_floating_point():
            tensor.fill_(7)
    assert torch.equal(core(images), expected)


def test_network_without_batch_norm_is_unchanged() -> None:
    core = LeNet5(variant="fast_adversarial").build(1, (28, 28), 10)
    names = [name for name, _ in core.named_modules()]
    assert split_batch_norm(core) is core
    assert [name for name, _ in core.named_modules()] == names


def test_splitting_twice_splits_once_and_a_lone_batch_norm_too() -> None:
    lone = split_batch_norm(nn.BatchNorm2d(3))
    assert isinstance(lone, SplitBatchNorm2d)
    assert split_batch_norm(lone) is lone
    assert isinstance(lone.clean, nn.BatchNorm2d)


def test_crafting_in_train_mode_moves_neither_half() -> None:
    network = Network(resnet(), [0.5], [0.25])
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for which in ("clean", "adversarial"):
        with crafting(network, "train"), use_statistics(network, which):
            network(torch.rand(4, 1, 8, 8))
    assert same(before, network.state_dict())
