"""What everyone attacks and trains: a model behind its normalisation, counting the gradients taken through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # what batch and instance norm of every rank share
from torch.utils.checkpoint import checkpoint

from sweep.models.preprocessor import Pixels, Preprocessor
from sweep.seeding import layer_randomness

Precision = Literal["float32", "bfloat16"]
View = Literal["judged", "training", "naive"]


class Network(nn.Module):
    """Images in [0, 1] -> preprocess -> (x - mean) / std -> core -> logits, in float32.

    Normalisation lives here so that every epsilon is in pixel units. `mean` and `std` hold one number a channel; under
    `bfloat16` the core alone runs in autocast. The core and its input are kept in channels_last, which changes no
    shape; benchmarks/README.md has what such measures save.

    `preprocess` is the defense's part of the network, and is attacked with it. Where it is random, logits are the mean
    over `draws` draws. They follow from `seed`, are the same for every image, and are known to whoever attacks: so the
    network is a function like any other, whose gradient is that of the mean (EOT, Athalye et al. 2018), for attacks
    that take gradients and for those that only look. In training, inside `viewed(network, "training")`, each pass makes
    one new draw.

    With `compiles`, training's passes go through torch.compile, those inside `viewed(network, "training")`: there every
    batch but the last has one size. The judge's batches hold what still stands, and each size would be compiled anew.

    `gradient_evaluations` counts the forward and backward passes taken through this network so far, one an example:
    when a gradient flows back from N logits to what they were made of, N is added, whoever asked for it. So

    - a training step adds N, an attack of k steps k N, a forward pass without a gradient nothing;
    - where logits are the mean over d draws, each of these is d times as many;
    - two backward passes through one forward pass (`retain_graph`) add 2 N;
    - double backpropagation adds 2 N: N for the input's gradient taken with `create_graph`, and N when the loss that
      holds its penalty is backpropagated. That second pass also runs backward through the first, so it takes longer
      than a plain one. If the loss is linear in the logits and only the gradient's penalty is backpropagated, nothing
      comes back through the logits: N in all.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        core: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        draws: int = 0,
        seed: int = 0,
        precision: Precision = "float32",
        compiles: bool = False,
    ) -> None:
        super().__init__()
        self.core = core.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        self.preprocess = preprocess
        self.draws = draws
        self.seed = seed
        self.view: View = "judged"
        self.precision = precision
        # The method, not the module, around which torch would put another: a second name for every parameter.
        self._compiled = torch.compile(core.forward, dynamic=False) if compiles else None
        self.gradient_evaluations = 0
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in [0, 1] -> logits [N, classes]."""
        if self.draws and self.view != "training":
            logits, passes = self._mean(images), self.draws if self.view == "judged" else 1
        else:
            logits, passes = self._logits(images), 1
        if logits.grad_fn is not None:
            # On the node, not on the tensor: a tensor's hook also runs for a gradient that ends at the logits.
            logits.grad_fn.register_prehook(partial(self._count, passes * len(images)))
        return logits

    def prepare(self, pixels: Pixels, size: int) -> None:
        """Train what the preprocessor learns from `size` training images before the network is trained."""
        if isinstance(self.preprocess, Preprocessor):
            self.gradient_evaluations += self.preprocess.prepare(pixels, size, self.seed)

    def _mean(self, images: Tensor) -> Tensor:
        """Over the draws that are judged; the naive attacker has one draw of its own. A draw's activations are made
        again when its gradient is taken: kept for all draws, they would need as many times the memory."""
        draws = range(self.draws) if self.view == "judged" else range(self.draws, self.draws + 1)
        total = images.new_zeros(())
        for draw in draws:
            total = total + checkpoint(self._drawn, images, draw, use_reentrant=False, preserve_rng_state=False)
        return total / len(draws)

    def _drawn(self, images: Tensor, draw: int) -> Tensor:
        with layer_randomness(self.seed, "preprocessing", draw):
            return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        preprocess = self.preprocess
        if isinstance(preprocess, Preprocessor) and self.view == "naive":
            images = preprocess.naive(images)
        elif preprocess is not None:
            images = preprocess(images)
        normalised = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        is_training = self.view == "training"
        core = self._compiled if self._compiled is not None and is_training else self.core
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits: Tensor = core(normalised)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))  # a float64 network stays one

    def _count(self, examples: int, _gradients: Any) -> None:
        self.gradient_evaluations += examples


@contextmanager
def viewed(network: Network, view: View) -> Iterator[None]:
    """How a network with a preprocessor shows itself inside: as it is `judged` (always, unless told otherwise), in
    `training` (what is random is drawn anew in each pass), or as a `naive` attack would differentiate it."""
    before, network.view = network.view, view
    try:
        yield
    finally:
        network.view = before


@contextmanager
def crafting(network: nn.Module, mode: Literal["train", "eval"]) -> Iterator[None]:
    """Make adversarial examples inside: every module in `mode`, no parameter wanting a gradient; then all as it was.

    Only the input's gradient is wanted, and the parameters' cost time of their own. In `train` mode batch norm
    normalises by the batch but leaves its running statistics (and their counter) alone, because `track_running_stats`
    is off for the time: a momentum of 0 would still count the batch, and turn one batch that is not finite into
    statistics that are not. Flags are restored one by one, also after an exception.
    """
    training = [(module, module.training) for module in network.modules()]
    tracking = [module for module in network.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        network.train(mode == "train")
        for parameter in trainable:
            parameter.requires_grad_(False)
        for norm in tracking if mode == "train" else []:
            norm.track_running_stats = False
        yield
    finally:
        for module, was_training in training:
            module.training = was_training
        for parameter in trainable:
            parameter.requires_grad_(True)
        for norm in tracking:
            norm.track_running_stats = True
