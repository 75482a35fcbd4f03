"""What a check is, and what a trial's checks add up to.

Every check measures one figure, of which more is worse, and compares it with two thresholds. Above `suspect` the
trial's adversarial accuracy is not to be believed and the trial can win nothing; above `investigate` genuine networks
are found too, so a person should look. The identifiers are those of the project's checklist, and stay for good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweep.attacks import Attack
from sweep.configuration import TrialConfig
from sweep.validity.subject import Subject

Level = Literal["fast", "full"]
Outcome = Literal["pass", "investigate", "suspect"]

CHECKS: dict[str, Check] = {}


@dataclass(frozen=True)
class Check:
    """One question about a trained network under its judge, the attack that the objective is measured by."""

    id: str
    title: str
    figure: str  # what is measured, in words with its unit
    reason: str  # why more of it means that the accuracy cannot be believed
    remedy: str
    source: str
    measure: Callable[[Subject], float | None]  # None: nothing of this trial can be measured
    passes: Callable[[Attack], float]  # forward and backward passes an image, at most, given the judge
    arises: Callable[[TrialConfig], bool]  # whether the question does, for a trial of this configuration
    level: Level = "fast"  # the cheapest level at which it is asked
    investigate: float | None = None
    suspect: float | None = None

    def outcome(self, figure: float) -> Outcome:
        if self.suspect is not None and figure > self.suspect:
            return "suspect"
        return "investigate" if self.investigate is not None and figure > self.investigate else "pass"

    def explain(self, figure: float) -> str:
        """One finding, for people: what was measured, why it matters, what to do."""
        outcome = self.outcome(figure)
        limit = self.suspect if outcome == "suspect" else self.investigate
        above = "" if outcome == "pass" or limit is None else f", above {limit:g}"
        return f"{self.id} {self.title}: {figure:.4g} {self.figure}{above}. {self.reason} {self.remedy}"


def check(
    id: str,
    title: str,
    *,
    figure: str,
    reason: str,
    remedy: str,
    source: str,
    passes: Callable[[Attack], float] = lambda judge: 0,
    arises: Callable[[TrialConfig], bool] = lambda config: True,
    level: Level = "fast",
    investigate: float | None = None,
    suspect: float | None = None,
) -> Callable[[Callable[[Subject], float | None]], Callable[[Subject], float | None]]:
    """Decorator: make a measurement a check."""

    def decorate(measure: Callable[[Subject], float | None]) -> Callable[[Subject], float | None]:
        if id in CHECKS:
            raise ValueError(f"check {id} is registered twice")
        CHECKS[id] = Check(
            id, title, figure, reason, remedy, source, measure, passes, arises, level, investigate, suspect
        )
        return measure

    return decorate


@dataclass(frozen=True)
class Validity:
    """What the checks of one trial found, as the journal holds it: figures by identifier, and who failed."""

    level: Level
    images: int
    gradient_evaluations: int  # what the checks cost, all images together
    figures: dict[str, float]
    suspect: tuple[str, ...]
    investigate: tuple[str, ...]

    @property
    def verdict(self) -> Literal["valid", "suspect"]:
        return "suspect" if self.suspect else "valid"

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)} | {
            "suspect": list(self.suspect),
            "investigate": list(self.investigate),
        }


def in_order() -> list[Check]:
    """Every check, by its identifier."""
    return sorted(CHECKS.values(), key=lambda check: int(check.id.removeprefix("V")))


def asked(config: TrialConfig) -> list[Check]:
    """The checks of a trial: those of its level whose question arises for it."""
    return [check for check in in_order() if config.validity in ("full", check.level) and check.arises(config)]
