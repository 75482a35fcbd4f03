from __future__ import annotations

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
    """

    num_steps: int = Field(100, ge=1, le=10_000, description="gradient steps of each run, for each target")
    num_queries: int = Field(5_000, ge=1, le=1_000_000, description="queries of the square attack")

    @property
    def label(self) -> str:
        standard = (self.num_steps, self.num_queries) == (100, 5_000)
        return "auto_attack" if standard else f"auto_attack_{self.num_steps}_{self.num_queries}"

    @property
    def parts(self) -> dict[str, Attack]:
        return {
            "apgd_ce": APGD(num_steps=self.num_steps),
            "apgd_t": APGDT(num_steps=self.num_steps),
            "fab_t": FABT(num_steps=self.num_steps),
            "square": Square(num_queries=self.num_queries),
        }
