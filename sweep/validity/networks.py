"""Checks of the network alone: what it returns, whether it returns it again, and what its gradient is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sweep.attacks import cross_entropy, margin
from sweep.attacks.base import input_gradient
from sweep.models.network import crafting
from sweep.validity.base import check
from sweep.validity.subject import Subject, share

_PASSES = 5  # forward passes compared (AutoAttack's check_randomized)


@check(
    "V2",
    "determinism",
    figure="largest L2 distance of an image's unit-length logits between forward passes",
    reason="A network that answers at random, or by its neighbours in the batch, hides its gradient in noise.",
    remedy="Attack the mean over its randomness (EOT), or put layers such as dropout in evaluation mode.",
    source="AutoAttack, check_randomized (Croce & Hein 2020)",
    investigate=1e-4,
    suspect=1e-2,
)
def determinism(subject: Subject) -> float:
    images = subject.images
    passes = [subject.logits(images) for _ in range(_PASSES - 1)]
    passes.append(subject.logits(images.flip(0)).flip(0))  # and among other neighbours
    with crafting(subject.network, "eval"), torch.enable_grad():  # and as whoever wants a gradient sees it
        passes.append(subject.network(images.clone().requires_grad_()).detach())
    return _apart(passes[0], *passes[1:])


@check(
    "V27",
    "the weights are the network",
    figure="largest L2 distance of an image's unit-length logits from those of a network built anew with its weights",
    reason="It remembers what it was shown, or is not what its export is: for others it will answer differently.",
    remedy="Keep everything that it answers by in its configuration and its weights, and change neither by asking.",
    source="Carlini et al. 2019, section 3.3; the thresholds are those of V2",
    investigate=1e-4,
    suspect=1e-2,
)
def weights(subject: Subject) -> float | None:
    if subject.known is None:
        return None
    points = subject.starts("weights")  # which it was not shown before
    return _apart(subject.logits(points), subject.logits(points, subject.known.anew()))


@check(
    "V3",
    "logits",
    figure="of the images get probabilities where logits are due",
    reason="Losses take logits; applied to probabilities they saturate, and their gradients vanish.",
    remedy="Let the model end in its last linear layer, without softmax.",
    source="AutoAttack, check_range_output (Croce & Hein 2020)",
    suspect=0.5,
)
def logits(subject: Subject) -> float:
    outputs = subject.logits(subject.images)
    inside = (outputs.amax(1) < 1 + 1e-5) & (outputs.amin(1) > -1e-5)
    return share(inside & ((outputs.sum(1) - 1).abs() < 1e-5))


@check(
    "V4",
    "vanished gradients",
    figure="of the images have a gradient of exactly 0 at a random start",
    reason="Where there is no gradient a gradient attack takes no step, and what it never tried counts as robust.",
    remedy="Look for rounding, sign or saturated outputs; attack with a margin loss, BPDA or without gradients.",
    source="AutoAttack, check_zero_gradients; indicator of failure F1 (Pintor et al. 2022)",
    passes=lambda judge: 2,
    investigate=0.0,
    suspect=0.05,
)
def vanished(subject: Subject) -> float | None:
    gradients = _gradients(subject)
    return max(share(gradient.abs().flatten(1).amax(1) == 0) for gradient in gradients) if gradients else None


@check(
    "V5",
    "non-finite gradients",
    figure="of the images have a gradient that is infinite or not a number",
    reason="No step is taken along such a gradient, so the attack stands still.",
    remedy="Find the operation (a root or logarithm of 0, an overflow) and give it a finite gradient.",
    source="ART, loss_gradient_check (Nicolae et al. 2018)",
    passes=lambda judge: 2,
    suspect=0.0,
)
def non_finite(subject: Subject) -> float | None:
    gradients = _gradients(subject)
    return max(1 - share(gradient.flatten(1).isfinite().all(1)) for gradient in gradients) if gradients else None


@check(
    "V6",
    "gradient calls inside",
    figure="gradient computations during one forward pass",
    reason="A network that optimises while it answers is not attacked by differentiating through its answer once.",
    remedy="Attack it through its own optimisation, or with transferred and gradient-free attacks.",
    source="AutoAttack, check_dynamic (Croce & Hein 2020)",
    suspect=0,
)
def gradient_calls(subject: Subject) -> float:
    with _counted_gradients() as calls:
        subject.logits(subject.images[:2])
    return len(calls)


@check(
    "V21",
    "stable loss",
    figure="mean relative change of the margin between random points of the ball",
    reason="A loss that jumps between neighbours misleads every step of a gradient attack.",
    remedy="Attack with many restarts and without gradients (Square), and look at the loss along a line.",
    source="indicator of failure, unstable predictions (Pintor et al. 2022); the threshold is ours",
    investigate=0.5,
)
def stability(subject: Subject) -> float | None:
    if not subject.clean.any():
        return None
    first, second = (subject.logits(subject.starts(f"stability {name}")) for name in "ab")
    one, other = (margin(logits, subject.split.labels)[subject.clean] for logits in (first, second))
    change = (one - other).abs() / one.abs().clamp_min(1e-12)
    return change.nan_to_num(nan=1.0).clamp(max=1).mean().item()


def _apart(first: Tensor, *others: Tensor) -> float:
    """The largest distance of an image's logits from the first ones, all at unit length; not a number counts as 2."""
    unit = [torch.nn.functional.normalize(logits, dim=1) for logits in (first, *others)]
    apart = torch.stack([one - unit[0] for one in unit[1:]]).norm(dim=2)
    return float(apart.nan_to_num(nan=2.0).amax())


def _gradients(subject: Subject) -> list[Tensor]:
    """Of the cross entropy and of the margin, at a random start, for the images that are right where they stand."""
    rows = subject.clean.to(subject.split.labels.device).nonzero().squeeze(1)
    if not len(rows):
        return []
    points, labels = subject.starts("gradients")[rows], subject.split.labels[rows]
    with crafting(subject.network, "eval"):
        return [input_gradient(subject.network, points, labels, loss)[1] for loss in (cross_entropy, margin)]


@contextmanager
def _counted_gradients() -> Iterator[list[str]]:
    """Notes every call of autograd inside the block; everything is as it was afterwards."""
    calls: list[str] = []
    places = [(torch.autograd, "grad"), (torch.autograd, "backward"), (torch.Tensor, "backward")]
    originals = [getattr(owner, name) for owner, name in places]

    def noted(original: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        return call

    try:
        for (owner, name), original in zip(places, originals, strict=True):
            setattr(owner, name, noted(original, name))
        yield calls
    finally:
        for (owner, name), original in zip(places, originals, strict=True):
            setattr(owner, name, original)
