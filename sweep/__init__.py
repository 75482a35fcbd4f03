"""Find the defense, and the hyperparameters, that make an image classifier robust to adversarial attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__version__ = "0.1.0"
__all__ = ["load"]


def load(folder: Path | str) -> nn.Module:
    """The network in a folder that `sweep export` wrote, preprocessing and normalisation inside, in evaluation mode.

    It takes images [N, C, H, W] in [0, 1], of the shape that it was trained on, and gives logits [N, classes]; given
    anything else, it raises sweep.errors.DataError.

    Example: sweep.load("best/")(images).argmax(1)
    """
    from sweep import exported  # noqa: PLC0415  # torch takes seconds, and `import sweep` none

    return exported.load(folder)
