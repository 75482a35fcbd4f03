from __future__ import annotations

import torch
from torch import Tensor

from sweep.threat_models import ThreatModel
from sweep.threat_models.base import per_example


def onto_plane(points: Tensor, normal: Tensor, height: Tensor, threat_model: ThreatModel) -> Tensor:
    """The nearest points of the box where a linear function is 0, in the threat model's geometry (FAB, section 3.1).

    The function has the gradients `normal` [N, C, H, W] and is worth `height` [N] at `points`. The nearest point is
    reached by moving along the steepest direction, every pixel until it meets the edge of the box (the condition of
    optimality of Linf and of L2 alike). The height lost on the way is piecewise linear, with a bend where a pixel
    stops, so sorting the bends gives the length of the way exactly. Where the box ends before the plane, every pixel
    goes to its edge, which is the nearest that the box comes.
    """
    toward = -per_example(height.sign(), normal) * threat_model.direction(normal)
    speed = toward.abs().flatten(1)
    room = torch.where(toward > 0, 1 - points, points).flatten(1)
    slope = normal.abs().flatten(1)
    bend, order = torch.where(speed > 0, room / speed, 0).sort(1)  # a pixel that stands still has nothing to stop
    lost_for_good = (slope * room * (speed > 0)).gather(1, order).cumsum(1)
    lost_before = torch.nn.functional.pad(lost_for_good, (1, -1))
    still_moving = (slope * speed).gather(1, order).flip(1).cumsum(1).flip(1)
    lost_at_bend = lost_before + bend * still_moving
    place = (lost_at_bend < height.abs()[:, None]).sum(1, keepdim=True).clamp(max=speed.shape[1] - 1)
    rate = still_moving.gather(1, place).clamp_min(torch.finfo(normal.dtype).tiny)
    length = (height.abs()[:, None] - lost_before.gather(1, place)) / rate
    length = torch.minimum(length.clamp_min(0), bend.gather(1, place)).squeeze(1)
    return (points + toward * per_example(length, points)).clamp(0, 1)
