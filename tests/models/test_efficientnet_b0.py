from __future__ import annotations

import pytest
import torch
from torch import nn

from sweep.models.efficientnet_b0 import EfficientNetB0

PUBLISHED = 5_288_548  # parameters for 1,000 classes, torchvision's documentation
HEAD = 1280 + 1  # weights and bias of one class


@pytest.mark.parametrize(("channels", "fewer"), [(3, 0), (1, 2 * 9 * 32)])
def test_parameter_count(channels: int, fewer: int) -> None:
    core = EfficientNetB0().build(channels, (64, 64), 10)
    assert sum(parameter.numel() for parameter in core.parameters()) == PUBLISHED - 990 * HEAD - fewer


def test_one_channel_gives_logits_and_an_input_gradient() -> None:
    core = EfficientNetB0().build(1, (32, 32), 7)
    images = torch.rand(2, 1, 32, 32, requires_grad=True)
    logits = core(images)
    (gradient,) = torch.autograd.grad(logits.square().sum(), images)
    assert logits.shape == (2, 7)
    assert gradient.abs().sum() > 0


def test_dropout_is_the_given_one_and_nothing_works_in_place() -> None:
    core = EfficientNetB0(dropout=0.35).build(3, (64, 64), 10)
    assert [module.p for module in core.modules() if isinstance(module, nn.Dropout)] == [0.35]
    assert not any(getattr(module, "inplace", False) for module in core.modules())
