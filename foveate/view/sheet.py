"""Contact sheets: pictures side by side, each with its caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from foveate.errors import InvalidParameter

_PAPER = (250, 250, 248)
_INK = (38, 38, 42)


def side_by_side(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    height: int | None = None,
    columns: int | None = None,
) -> Image.Image:
    """Pictures in rows of at most `columns` (all in one row by default), captions below them.

    height: of every picture, in pixels; by default the tallest one's. Captions wrap to the width of
    their picture; the font knows Latin letters only.
    """
    images, captions = list(images), list(captions)
    if not images or len(images) != len(captions):
        raise InvalidParameter(
            f"{len(images)} pictures with {len(captions)} captions make no sheet; "
            "give one caption for each of one or more pictures."
        )
    height = height or max(image.height for image in images)
    columns = min(columns or len(images), len(images))
    images = [_to_height(image.convert("RGB"), height) for image in images]
    size = max(13, round(height / 26))
    gap = max(10, size)
    font = ImageFont.load_default(size)
    texts = [_wrapped(c, i.width, font) for c, i in zip(captions, images, strict=True)]
    line = round(size * 1.35)
    under = line * max(len(text) for text in texts) + gap
    rows = [range(i, min(i + columns, len(images))) for i in range(0, len(images), columns)]
    width = max(sum(images[i].width for i in row) + gap * (len(row) + 1) for row in rows)
    sheet = Image.new("RGB", (width, gap + len(rows) * (height + under)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        x, y = gap, gap + r * (height + under)
        for i in row:
            sheet.paste(images[i], (x, y))
            for n, text in enumerate(texts[i]):
                draw.text((x, y + height + size // 2 + n * line), text, _INK, font)
            x += images[i].width + gap
    return sheet


def _to_height(image: Image.Image, height: int) -> Image.Image:
    if image.height == height:
        return image
    width = max(1, round(image.width * height / image.height))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _wrapped(text: str, width: int, font: Any) -> list[str]:
    """Lines of whole words, none wider than the picture above unless a single word is."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines
