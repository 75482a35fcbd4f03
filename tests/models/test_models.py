"""What holds for every registered model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from sweep.errors import ConfigurationError
from sweep.models import Model, NamedModel
from sweep.models.network import Network
from sweep.registry import KINDS, build, validated
from sweep.seeding import layer_randomness

SMALL: dict[str, dict[str, Any]] = {"resnet18": {"width": 4}}


def make(name: str, seed: int) -> Network:
    model = build("model", {"name": name, **SMALL.get(name, {})})
    assert isinstance(model, Model)
    with layer_randomness(seed, "initialisation"):
        return Network(model.build(1, (16, 16), 5), [0.5], [0.25])


def parameters(network: Network) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("name", sorted(KINDS["model"]))
def test_seed_decides_the_initialisation_and_the_global_stream_is_untouched(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = make(name, 0), make(name, 0), make(name, 1)
    assert torch.equal(parameters(first), parameters(again))
    assert not torch.equal(parameters(first), parameters(other))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(KINDS["model"]))
def test_gradients_reach_every_parameter_and_the_images(name: str) -> None:
    network = make(name, 0)
    images = torch.rand(8, 1, 16, 16, requires_grad=True)
    logits = network(images)
    torch.autograd.backward(logits.square().sum())
    assert logits.shape == (8, 5)
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", sorted(KINDS["model"]))
def test_gradient_penalty_can_be_backpropagated(name: str) -> None:
    network = make(name, 0).eval()
    images = torch.rand(2, 1, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(images).square().sum(), images, create_graph=True)
    torch.autograd.backward(gradient.square().sum())
    assert network.gradient_evaluations == 4


class Holder(BaseModel):
    model: NamedModel


def test_name_and_fields_survive_json() -> None:
    model = build("model", {"name": "lenet5", "variant": "advertorch", "activation": "silu"})
    assert validated(Holder, json.loads(Holder(model=model).model_dump_json()), "trial").model == model


def test_wrong_variant_names_what_is_allowed() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.variant: must be 'lecun1998', 'madry'.*got 'lecun'"):
        validated(Holder, {"model": {"name": "lenet5", "variant": "lecun"}}, "trial")
