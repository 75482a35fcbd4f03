"""Projected gradient ascent, written once: FGSM, PGD, CW and the inner loop of TRADES are all this function."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sweep.attacks.base import Adversary, Objective, input_gradient, wrong
from sweep.threat_models.base import per_example


def ascend(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    adversary: Adversary,
    *,
    objective: Objective,
    reference: Tensor | None = None,
    momentum: float = 0.0,
    step_size: Tensor | float,
    num_steps: int,
    until_broken: bool,
) -> Tensor:
    """x <- project(x + step_size * direction(gradient of the objective)), `num_steps` times (Madry et al. 2018, eq. 3).

    `reference` is what the objective holds the logits against, the labels if None. With `momentum` mu the direction is
    that of g <- mu g + gradient / |gradient|_1 (Dong et al. 2018, eq. 6).

    With `until_broken`, an example whose current point is misclassified keeps that point and leaves the batch; the
    others are not affected, because the network is in evaluation mode and treats each example on its own.

    Where a gradient is NaN no step is taken: an image of NaN lies in no ball, and would pass for a success.
    """
    threat_model, epsilon = adversary.threat_model, adversary.epsilon
    result, points, gathered = start.clone(), start, torch.zeros_like(start)
    reference = labels if reference is None else reference
    rows = torch.arange(len(images), device=images.device)
    for _ in range(num_steps):
        logits, gradient = input_gradient(network, points, reference, objective)
        if until_broken:
            intact = ~wrong(logits, labels)
            rows, images, labels = rows[intact], images[intact], labels[intact]
            points, gradient = points[intact], gradient[intact]
            reference, gathered = reference[intact], gathered[intact]
            if not len(rows):
                break
        gradient = gradient.nan_to_num()
        if momentum:
            gradient = gathered = momentum * gathered + _of_length_1(gradient)
        points = threat_model.project(points + step_size * threat_model.direction(gradient), images, epsilon)
        result[rows] = points  # so what breaks at the next look is already kept
    return result


def _of_length_1(gradient: Tensor) -> Tensor:
    """Scaled so that the entries' absolute values add up to 1; a gradient of zero stays zero."""
    length = gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / per_example(length, gradient)
