from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from sweep.models.activations import ActivationName
from sweep.models.base import Convolution, Model, convolutional_network
from sweep.registry import register

Variant = Literal["lecun1998", "madry", "advertorch", "fast_adversarial"]

_LAYERS: dict[Variant, tuple[tuple[Convolution, ...], tuple[int, ...]]] = {
    "lecun1998": (
        (Convolution(6, kernel=5, padding=2, pool=True), Convolution(16, kernel=5, padding=0, pool=True)),
        (120, 84),
    ),
    "madry": (
        (Convolution(32, kernel=5, padding=2, pool=True), Convolution(64, kernel=5, padding=2, pool=True)),
        (1024,),
    ),
    "advertorch": (
        (Convolution(32, kernel=3, padding=1, pool=True), Convolution(64, kernel=3, padding=1, pool=True)),
        (200,),
    ),
    "fast_adversarial": (
        (Convolution(16, kernel=4, padding=1, stride=2), Convolution(32, kernel=4, padding=1, stride=2)),
        (100,),
    ),
}


@register("lenet5")
class LeNet5(Model):
    """The networks that papers on MNIST call LeNet or LeNet-5; they are not the same, so each has its name here.

    - `lecun1998` (LeCun et al. 1998, figure 2): convolutions 5x5 to 6 and 16 maps, linear 120 and 84. As is usual today
      it has max pooling, full connections and linear outputs for the original's trained subsampling, partial
      connections and radial outputs, and `activation` (its own was a scaled tanh; here relu unless named).
    - `madry` (Madry et al. 2018, the MNIST challenge): 5x5 to 32 and 64 maps, linear 1024.
    - `advertorch` (its published MNIST weights): 3x3 to 32 and 64 maps, linear 200.
    - `fast_adversarial` (Wong et al. 2020, MNIST): 4x4 with stride 2 to 16 and 32 maps, linear 100, no pooling.

    The default is `madry`: the MNIST challenge's figures at epsilon 0.3 are its, and it has the capacity that
    adversarial training needs (Madry et al., section 4: small networks fall back to one class).
    """

    variant: Variant = Field(default="madry", description="whose LeNet")
    activation: ActivationName = Field(default="relu", description="after every layer but the last")

    def build(self, channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        convolutions, hidden = _LAYERS[self.variant]
        return convolutional_network(convolutions, hidden, self.activation, (channels, size), classes)
