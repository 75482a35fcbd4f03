"""The registry: a component is named, built, written out and refused by the same few lines."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, SerializeAsAny

from sweep.attacks.fgsm import FGSM
from sweep.attacks.pgd import PGD
from sweep.errors import ConfigurationError, unknown
from sweep.registry import KINDS, Component, Record, build, named, register, validated
from sweep.threat_models.linf import Linf


class Cheese(Component):
    kind: ClassVar[str] = "cheese"


class Board(Record):
    cheese: Annotated[SerializeAsAny[Cheese], named("cheese")]
    guests: int = Field(2, ge=1, le=12)


@pytest.fixture(autouse=True)
def own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "cheese", {})

    @register("brie")
    class Brie(Cheese):
        weight: float = Field(0.2, gt=0, le=3, description="kilograms")

    @register("ash_covered")
    class AshCovered(Cheese):
        pass


def mistakes(data: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        validated(Board, data, "board")
    return caught.value.problems


def test_a_name_a_mapping_and_the_component_are_the_same() -> None:
    brie = build("cheese", "brie")
    assert build("cheese", {"name": "brie"}) == brie == build("cheese", brie)
    assert build("cheese", {"name": "brie", "weight": 1.5}).weight == 1.5


def test_a_component_writes_its_name_and_every_default() -> None:
    board = validated(Board, {"cheese": "brie"}, "board")
    assert board.model_dump(mode="json") == {"cheese": {"name": "brie", "weight": 0.2}, "guests": 2}
    assert validated(Board, board.model_dump(mode="json"), "board") == board


def test_every_mistake_comes_at_once_with_its_key_and_what_is_allowed() -> None:
    assert mistakes({"cheese": {"name": "brie", "wieght": 1.0, "weight": 9.0}, "guests": "two", "wine": 1}) == (
        "cheese.weight: must be less than or equal to 3, got 9.0",
        "cheese.wieght: unknown parameter 'wieght'; did you mean 'weight'? (allowed: weight)",
        "guests: must be a valid integer, got 'two'",
        "wine: unknown parameter 'wine' (allowed: cheese, guests)",
    )


@pytest.mark.parametrize(
    ("cheese", "sentence"),
    [
        ("brei", "cheese: unknown cheese 'brei'; did you mean 'brie'? (allowed: ash_covered, brie)"),
        (3, 'cheese: needs the name of a cheese, or a mapping such as {"name": "ash_covered"}'),
        ({"weight": 1.0}, 'cheese: needs the name of a cheese, or a mapping such as {"name": "ash_covered"}'),
        (Linf(epsilon=0.1), "cheese: needs a cheese, not a threat_model"),
        ({"name": "brie", "weight": float("nan")}, "cheese.weight: must be a finite number, got nan"),
        ({"name": "brie", "weight": True}, "cheese.weight: must be a valid number, got True"),
        ({"name": "brie", 3: 4}, "cheese"),
    ],
)
def test_a_wrong_component_says_what_is_right(cheese: Any, sentence: str) -> None:
    (mistake,) = mistakes({"cheese": cheese})
    assert mistake.startswith(sentence)


def test_two_components_of_one_name_are_a_defect() -> None:
    with pytest.raises(ValueError, match="cheese 'brie' is registered twice"):

        @register("brie")
        class Another(Cheese):
            pass


def test_components_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build("cheese", "brie").weight = 1.0


def test_a_component_of_the_right_kind_passes_through_untouched() -> None:
    attack = PGD(num_steps=3)
    assert build("attack", attack) is attack
    assert isinstance(build("attack", "fgsm"), FGSM)


def test_unknown_names_the_nearest() -> None:
    assert unknown("attack", "pdg", ["pgd", "fgsm"]) == "unknown attack 'pdg'; did you mean 'pgd'? (allowed: fgsm, pgd)"
    assert unknown("attack", "zzz", []) == "unknown attack 'zzz' (allowed: none)"
