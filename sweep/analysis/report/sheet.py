"""The adversarial examples as one picture, for where the page is not."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from sweep.analysis.report.examples import Exhibit, Strip

_TILE, _GAP, _LINE = 72, 6, 24  # pixels: of a picture, between them, of a line of text
_INK, _PAPER = "#1f2328", "#ffffff"  # those of the page in the light
_GOOD, _BAD = "#00734f", "#b34700"


def contact_sheet(exhibits: Sequence[Exhibit]) -> Image.Image:
    """A row of strips for each network: original, perturbation, adversarial, saliency, and what it answers."""
    width = max(len(exhibit.strips) for exhibit in exhibits) * _strip_width() + _GAP
    sheet = Image.new("RGB", (width, len(exhibits) * _row_height() + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, exhibit in enumerate(exhibits):
        top = _GAP + row * _row_height()
        draw.text((_GAP, top), f"{exhibit.name}, under {exhibit.attack}", _INK, font)
        for column, strip in enumerate(exhibit.strips):
            left = _GAP + column * _strip_width()
            _paste(sheet, strip, left, top + _LINE)
            answers = f"{strip.before} to {strip.after}"
            draw.text((left, top + _LINE + _TILE), answers, _BAD if strip.is_broken else _GOOD, font)
    return sheet


def _paste(sheet: Image.Image, strip: Strip, left: int, top: int) -> None:
    for place, picture in enumerate(strip.pictures):
        with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as opened:
            tile = opened.resize((_TILE, _TILE), Image.Resampling.NEAREST)
        sheet.paste(tile, (left + place * (_TILE + _GAP), top))


def _strip_width() -> int:
    return 4 * (_TILE + _GAP) + 2 * _GAP


def _row_height() -> int:
    return _TILE + 2 * _LINE + 2 * _GAP
