from __future__ import annotations

from typing import Literal

from pydantic import Field

from sweep.attacks.pgd import PGD
from sweep.registry import register


@register("cw_pgd")
class CWPGD(PGD):
    """Carlini and Wagner's margin raised by PGD: what "CW accuracy" means in a fixed ball (Madry et al. 2018, 5.2).

    Carlini's own attack minimises a distance instead of staying in a ball: see `carlini_l2`.
    """

    num_steps: int = Field(40, ge=1, le=10_000, description="gradient steps per restart")
    loss: Literal["margin"] = Field("margin", description="what the attack raises; for another loss use pgd")
