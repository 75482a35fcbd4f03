from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sweep.models.network import Network
from sweep.models.small_cnn import SmallCNN
from sweep.seeding import generator, layer_randomness


def test_parameter_count_by_hand() -> None:
    core = SmallCNN(width=16).build(1, (8, 8), 10)
    by_hand = (9 * 16 + 16) + (9 * 16 * 32 + 32) + (4 * 4 * 32 * 64 + 64) + (64 * 10 + 10)
    assert sum(parameter.numel() for parameter in core.parameters()) == by_hand


def test_takes_odd_sizes_and_colour() -> None:
    assert SmallCNN(width=4).build(3, (9, 13), 5)(torch.rand(2, 3, 9, 13)).shape == (2, 5)


def test_learns_random_labels_by_heart() -> None:
    randomness = generator(0, "images")
    images = torch.rand(64, 1, 8, 8, generator=randomness)
    labels = torch.randint(10, (64,), generator=randomness)
    with layer_randomness(0, "initialisation"):
        network = Network(SmallCNN().build(1, (8, 8), 10), [0.5], [0.25])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(network(images), labels))
        optimizer.step()
    assert torch.equal(network(images).argmax(1), labels)


def test_activation_is_the_named_one() -> None:
    core = SmallCNN(activation="silu").build(1, (8, 8), 10)
    assert sum(isinstance(module, nn.SiLU) for module in core.modules()) == 3
