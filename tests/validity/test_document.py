"""docs/validity.md says what the checks are; they say it themselves."""

from __future__ import annotations

from pathlib import Path

from sweep.validity import CHECKS
from sweep.validity.document import updated

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "validity.md"


def test_the_table_is_that_of_the_checks() -> None:
    text = DOCUMENT.read_text()
    assert text == updated(text), "write it again: python -m sweep.validity.document"


def test_every_check_says_what_people_need() -> None:
    for check in CHECKS.values():
        assert check.suspect is not None or check.investigate is not None, f"{check.id} can find nothing"
        for sentence in (check.reason, check.remedy):
            assert sentence[0].isupper() and sentence.endswith("."), f"{check.id}: {sentence}"
        assert check.source and check.figure[0].islower() and "|" not in check.explain(1.0)
