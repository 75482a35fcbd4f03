"""Projected gradient ascent, written once: FGSM, PGD, CW and the inner loop of TRADES are all this function."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sweep.attacks.base import Adversary, Objective, input_gradient, wrong


def ascend(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    adversary: Adversary,
    *,
    objective: Objective,
    step_size: Tensor | float,
    num_steps: int,
    until_broken: bool,
) -> Tensor:
    """x <- project(x + step_size * direction(gradient of the objective)), `num_steps` times (Madry et al. 2018, eq. 3).

    With `until_broken`, an example whose current point is misclassified keeps that point and leaves the batch; the
    others are not affected, because the network is in evaluation mode and treats each example on its own.

    Where a gradient is NaN no step is taken: an image of NaN lies in no ball, and would pass for a success.
    """
    threat_model, epsilon = adversary.threat_model, adversary.epsilon
    result, points = start.clone(), start
    rows = torch.arange(len(images), device=images.device)
    for _ in range(num_steps):
        logits, gradient = input_gradient(network, points, labels, objective)
        if until_broken:
            intact = ~wrong(logits, labels)
            rows, images, labels = rows[intact], images[intact], labels[intact]
            points, gradient = points[intact], gradient[intact]
            if not len(rows):
                break
        direction = threat_model.direction(gradient.nan_to_num())
        points = threat_model.project(points + step_size * direction, images, epsilon)
        result[rows] = points  # so what breaks at the next look is already kept
    return result
