"""Two sets of batch norm statistics, for clean and for adversarial batches (AdvProp, Xie et al. 2020, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Literal

from torch import Tensor, nn

Statistics = Literal["clean", "adversarial"]


class SplitBatchNorm2d(nn.Module):
    """Two batch norms, each with its own statistics, scale and shift; `statistics` says which one is used.

    The clean one is the paper's main batch norm, and the default: it alone is used for inference, by which every attack
    and every accuracy of the evaluation goes.
    """

    def __init__(self, clean: nn.BatchNorm2d) -> None:
        super().__init__()
        self.clean = clean
        self.adversarial = deepcopy(clean)
        self.statistics: Statistics = "clean"

    def forward(self, features: Tensor) -> Tensor:
        chosen = self.clean if self.statistics == "clean" else self.adversarial
        result: Tensor = chosen(features)
        return result


def split_batch_norm(core: nn.Module) -> nn.Module:
    """`core` with every BatchNorm2d in it replaced by a split one; changed in place, and unchanged where there is none.

    Both halves begin as the batch norm that they replace. Call it before an optimizer takes the parameters.
    """
    if isinstance(core, nn.BatchNorm2d):
        return SplitBatchNorm2d(core)
    if not isinstance(core, SplitBatchNorm2d):
        for name, child in core.named_children():
            setattr(core, name, split_batch_norm(child))
    return core


@contextmanager
def use_statistics(core: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Use these statistics in every split batch norm inside the block, and those from before after it.

    For AdvProp: `with use_statistics(network, "adversarial")` around both making the adversarial batch and its loss.
    """
    split = [(module, module.statistics) for module in core.modules() if isinstance(module, SplitBatchNorm2d)]
    try:
        for module, _ in split:
            module.statistics = statistics
        yield
    finally:
        for module, before in split:
            module.statistics = before
