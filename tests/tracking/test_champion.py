"""Who dethrones a champion."""

from __future__ import annotations

import pytest

from sweep.tracking.champion import reason_against


def told(claim: str = "confirmed", worst_case: str = "0.8000", judged_by: str = "these") -> dict[str, str]:
    return {"claim": claim, "worst_case": worst_case, "judged_by": judged_by}


@pytest.mark.parametrize(
    ("version", "champion", "said"),
    [
        (told(), None, None),
        (told("suspect"), None, "it is suspect"),
        (told(worst_case="0.8100"), told(), None),
        (told(), told(), None),
        (told(worst_case="0.7900"), told(), "its worst case is 0.7900, and the champion's 0.8000"),
        (told(judged_by="others"), told(), "judged otherwise"),
        (told(), told("unconfirmed", "0.9000", "others"), None),
        (told("unconfirmed", "0.9000"), told(), "it is unconfirmed, and the champion is confirmed"),
        (told("unconfirmed", "0.1000", "others"), told("suspect"), None),
        (told(), {"made": "by hand"}, "nothing is known"),
    ],
)
def test_only_what_is_alike_and_no_worse_dethrones(
    version: dict[str, str], champion: dict[str, str] | None, said: str | None
) -> None:
    reason = reason_against(version, champion)
    assert reason is None if said is None else reason is not None and said in reason
