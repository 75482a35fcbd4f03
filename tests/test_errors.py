"""The words of sentences for people."""

from __future__ import annotations

import pytest

from sweep.errors import counted


@pytest.mark.parametrize(
    ("count", "thing", "said"),
    [
        (0, "trial", "0 trials"),
        (1, "trial", "1 trial"),
        (1_234_567, "event", "1,234,567 events"),
        (1.0, "hour", "1 hour"),
        (0.5, "hour", "0.5 hours"),
        (1, "metric value", "1 metric value"),
    ],
)
def test_one_of_a_thing_is_no_plural(count: float, thing: str, said: str) -> None:
    assert counted(count, thing) == said
