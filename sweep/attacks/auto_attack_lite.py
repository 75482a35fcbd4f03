from __future__ import annotations

from pydantic import Field

from sweep.attacks.apgd import APGD
from sweep.attacks.apgd_t import APGDT
from sweep.attacks.base import Attack
from sweep.attacks.cascade import Cascade
from sweep.registry import register


@register("auto_attack_lite")
class AutoAttackLite(Cascade):
    """AutoAttack's first two parts, APGD on the cross-entropy and APGD-T: for promotions, at a part of the time.

    FAB-T and Square seldom break what these two leave, but on MNIST at 0.3 Square does: `benchmarks/README.md` has the
    difference. A figure of it is an upper bound of AutoAttack's.
    """

    num_steps: int = Field(100, ge=1, le=10_000, description="gradient steps of each run, for each target")

    @property
    def label(self) -> str:
        return "auto_attack_lite" + ("" if self.num_steps == 100 else f"_{self.num_steps}")

    @property
    def parts(self) -> dict[str, Attack]:
        return {"apgd_ce": APGD(num_steps=self.num_steps), "apgd_t": APGDT(num_steps=self.num_steps)}
