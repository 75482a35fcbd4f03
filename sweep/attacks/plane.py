from __future__ import annotations

import torch
from torch import Tensor

from sweep.threat_models import ThreatModel
from sweep.threat_models.base import per_example


def onto_plane(points: Tensor, normal: Tensor, height: Tensor, threat_model: ThreatModel) -> Tensor:
    """The nearest points of the box where a linear function is 0, in the threat model's geometry (FAB, section 3.1).

    The function has the gradients `normal` [N, C, H, W] and is worth `height` [N] at `points`. The nearest point is
    reached by moving along the steepest direction, every pixel until it meets the edge of the box (the condition of
    optimality of Linf and of L2 alike). Where the box ends before the plane, every pixel goes to its edge, which is the
    nearest that the box comes.
    """
    toward = -per_example(height.sign(), normal) * threat_model.direction(normal)
    speed = toward.abs().flatten(1)
    room = torch.where(toward > 0, 1 - points, points).flatten(1)
    length = _length(speed, room, normal.abs().flatten(1), height.abs()[:, None])
    moved = torch.minimum(speed * length, room).view_as(points)
    return (points + toward.sign() * moved).clamp(0, 1)


def _length(speed: Tensor, room: Tensor, slope: Tensor, height: Tensor) -> Tensor:
    """[N, 1]: how far to move until `height` is lost, by Newton's method.

    What is lost is concave in the length, and linear while no further pixel stops. So a Newton step never goes too far,
    and the one after which no further pixel has stopped was exact: 4 to 20 steps on real images, where the sort that
    the authors use takes up to three times as long on a CPU.
    """
    length = torch.zeros_like(height)
    moving = room > 0
    while True:
        lost = (slope * torch.minimum(speed * length, room)).sum(1, keepdim=True)
        rate = (slope * speed * moving).sum(1, keepdim=True)
        step = torch.where(rate > 0, (height - lost) / rate, 0).clamp_min(0)
        length = (length + step).clamp(max=torch.finfo(length.dtype).max)  # 0 times infinity would be no number
        still_moving = moving & (speed * length < room)
        if torch.equal(still_moving, moving):
            return length
        moving = still_moving
