from __future__ import annotations

from pydantic import Field
from torch import nn

from sweep.models.base import Model
from sweep.models.vision import torchvision
from sweep.registry import register


@register("efficientnet_b0")
class EfficientNetB0(Model):
    """EfficientNet-B0 (Tan and Le 2019), torchvision's: layers, initialisation and stochastic depth (0.2) are its.

    Not pretrained. Two things are changed: the first convolution where images have not three channels, and no layer
    works in place. It halves the image five times, so it means little below 32x32. Its activation is always SiLU.
    """

    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="probability of dropping a feature before the last layer"
    )

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        network: nn.Module = torchvision().models.efficientnet_b0(
            weights=None, num_classes=classes, dropout=self.dropout
        )
        if channels != 3:
            stem = network.get_submodule("features.0")
            assert isinstance(stem, nn.Sequential)
            stem[0] = convolution = nn.Conv2d(channels, 32, kernel_size=3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out")  # as torchvision initialises its convolutions
        for module in network.modules():
            if isinstance(module, nn.SiLU | nn.Dropout):
                module.inplace = False
        return network
