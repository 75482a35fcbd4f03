"""Whether a version of a registered model may be its champion: nobody is dethroned by what is worse or not alike.

By their tags: `claim` (confirmed, unconfirmed or suspect), `worst_case` (accuracy under every attack: of what is
confirmed on the test split, the mean over its seeds, else on the validation split), `judged_by` (a fingerprint of data,
threat model and attacks).
"""

from __future__ import annotations

from collections.abc import Mapping


def reason_against(told: Mapping[str, str], champion: Mapping[str, str] | None) -> str | None:
    """Why what is `told` of a version makes it no champion beside the one that there is, if any; None where it does."""
    if told["claim"] == "suspect":
        return "it is suspect"
    if champion is None or champion.get("claim") == "suspect":
        return None
    if "claim" not in champion:
        return "nothing is known of the champion's figures, which something else registered"
    if champion["claim"] != told["claim"]:
        return None if told["claim"] == "confirmed" else "it is unconfirmed, and the champion is confirmed"
    if champion["judged_by"] != told["judged_by"]:
        return "the champion was judged otherwise: by other data, threat model or attacks"
    is_worse = float(told["worst_case"]) < float(champion["worst_case"])
    return f"its worst case is {told['worst_case']}, and the champion's {champion['worst_case']}" if is_worse else None
