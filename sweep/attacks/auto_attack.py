from __future__ import annotations

from typing import Literal

from pydantic import Field

from sweep.attacks.apgd import APGD
from sweep.attacks.apgd_t import APGDT
from sweep.attacks.base import Attack
from sweep.attacks.cascade import Cascade
from sweep.attacks.fab_t import FABT
from sweep.attacks.square import Square
from sweep.registry import register


@register("auto_attack")
class AutoAttack(Cascade):
    """APGD on the cross-entropy, then APGD-T, FAB-T and Square, each on what is left (Croce and Hein 2020, section 5).

    The standard version, without anything to choose: 100 steps, 9 targets, 5,000 queries. With other numbers it is no
    AutoAttack, and its name says so. Classes fewer than the targets are all aimed at; see `apgd_t` for fewer than four.

    The `random` version is for networks that are random at test: APGD on the cross-entropy and on the DLR. Both
    versions take a random network's gradients as the mean over its declared draws (EOT): that is the network's doing.
    """

    version: Literal["standard", "random"] = Field("standard", description="which attacks it is made of")
    num_steps: int = Field(100, ge=1, le=10_000, description="gradient steps of each run, for each target")
    num_queries: int = Field(5_000, ge=1, le=1_000_000, description="queries of the square attack")

    @property
    def label(self) -> str:
        name = "auto_attack" if self.version == "standard" else "auto_attack_random"
        standard = (self.num_steps, self.num_queries) == (100, 5_000)
        return name if standard else f"{name}_{self.num_steps}_{self.num_queries}"

    @property
    def parts(self) -> dict[str, Attack]:
        if self.version == "random":
            return {
                "apgd_ce": APGD(num_steps=self.num_steps),
                "apgd_dlr": APGD(num_steps=self.num_steps, loss="dlr"),
            }
        return {
            "apgd_ce": APGD(num_steps=self.num_steps),
            "apgd_t": APGDT(num_steps=self.num_steps),
            "fab_t": FABT(num_steps=self.num_steps),
            "square": Square(num_queries=self.num_queries),
        }
