"""Sheets of pictures: a head with text and a legend, then pictures in rows with captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from foveate.errors import InvalidParameter
from foveate.view.colours import FAINT, INK, PAPER
from foveate.view.sizes import to_height
from foveate.view.text import font, line_height, wrapped

_NARROW = 480
"""Pixels that a sheet with a head is wide at least, so that its text has room."""


_GAP = 14
"""Pixels between pictures, and around them."""


@dataclass(frozen=True)
class Head:
    """What stands above the pictures of a sheet.

    Attributes:
        title: first line, larger than the others.
        lines: further lines; empty ones are left out.
        legend: pairs of a small picture and what it stands for.
    """

    title: str
    lines: Sequence[str] = ()
    legend: Sequence[tuple[Image.Image, str]] = ()


def side_by_side(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    *,
    height: int | None = None,
    columns: int | None = None,
    head: Head | None = None,
) -> Image.Image:
    """Pictures in rows, captions below them.

    Args:
        images: one or more pictures.
        captions: one per picture; wrapped to the width of its picture.
        height: of every picture, in pixels; by default the tallest one's.
        columns: most pictures in a row; all of them by default.
        head: text and legend above the pictures; none by default.
    """
    images, captions = list(images), list(captions)
    if not images or len(images) != len(captions):
        raise InvalidParameter(
            f"{len(images)} images but {len(captions)} captions; "
            "give one caption per image, and at least one image."
        )
    height = height or max(image.height for image in images)
    columns = min(columns or len(images), len(images))
    images = [to_height(image.convert("RGB"), height) for image in images]
    rows = [range(i, min(i + columns, len(images))) for i in range(0, len(images), columns)]
    widest = max(sum(images[i].width for i in row) for row in rows)
    size = _text_size(height, widest)
    gap = _GAP
    texts = [
        wrapped(c, max(i.width, 3 * size), size) for c, i in zip(captions, images, strict=True)
    ]
    line = line_height(size)
    under = line * max(len(text) for text in texts) + gap if any(captions) or head is None else gap
    width = max(sum(images[i].width for i in row) + gap * (len(row) + 1) for row in rows)
    sheet = Image.new("RGB", (width, gap + len(rows) * (height + under)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for r, row in enumerate(rows):
        x, y = gap, gap + r * (height + under)
        for i in row:
            sheet.paste(images[i], (x, y))
            for n, text in enumerate(texts[i]):
                draw.text((x, y + height + size // 2 + n * line), text, INK, font(size, text))
            x += images[i].width + gap
    return sheet if head is None else headed(sheet, head)


def headed(sheet: Image.Image, head: Head) -> Image.Image:
    """A sheet below its head."""
    width = max(sheet.width, _NARROW)
    size = round(max(15, min(20, width / 50)))
    above = _drawn(head, width - 2 * _GAP, size)
    whole = Image.new("RGB", (width, _GAP + above.height + sheet.height), PAPER)
    whole.paste(above, (_GAP, _GAP))
    whole.paste(sheet, (0, _GAP + above.height))
    return whole


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets below one another."""
    size = max(each.width for each in sheets), sum(each.height for each in sheets)
    return _pasted(sheets, size, down=True)


def beside(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets beside one another, their upper edges at one height."""
    size = sum(each.width for each in sheets), max(each.height for each in sheets)
    return _pasted(sheets, size, down=False)


def _pasted(sheets: Sequence[Image.Image], size: tuple[int, int], down: bool) -> Image.Image:
    whole, at = Image.new("RGB", size, PAPER), 0
    for each in sheets:
        whole.paste(each, (0, at) if down else (at, 0))
        at += each.height if down else each.width
    return whole


def _text_size(height: int, width: int) -> int:
    """Size of captions: in proportion to the pictures, never too small to read."""
    return max(14, min(18, round(min(height / 20, width / 40))))


def _drawn(head: Head, width: int, size: int) -> Image.Image:
    """The head as a picture of `width` pixels."""
    large, line = round(size * 1.2), line_height(size)
    title = wrapped(head.title, width, large)
    lines = [piece for text in head.lines if text for piece in wrapped(text, width, size)]
    entries = _entries(head.legend, width, size)
    marks = max((y for _, y, _, _ in entries), default=-1) + 1
    height = line_height(large) * len(title) + line * (len(lines) + marks) + size // 2
    drawn = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(drawn)
    y = 0
    for text in title:
        draw.text((0, y), text, INK, font(large, text))
        y += line_height(large)
    for text in lines:
        draw.text((0, y), text, INK, font(size, text))
        y += line
    for x, row, mark, text in entries:
        at = y + size // 3 + row * line
        drawn.paste(mark.resize((size, size), Image.Resampling.NEAREST), (x, at))
        draw.text((x + round(1.4 * size), at - size // 8), text, FAINT, font(size, text))
    return drawn


def _entries(
    legend: Sequence[tuple[Image.Image, str]], width: int, size: int
) -> list[tuple[int, int, Image.Image, str]]:
    """Where each entry of a legend stands: x, row, its mark, and its text in lines that fit."""
    made, x, row = [], 0, 0
    for mark, text in legend:
        lines = wrapped(text, width - 2 * size, size)
        wide = max(font(size, t).getlength(t) for t in lines) + round(1.4 * size)
        if x and x + wide > width:
            x, row = 0, row + 1
        for n, part in enumerate(lines):
            made.append((x, row + n, mark if n == 0 else Image.new("RGB", mark.size, PAPER), part))
        row += len(lines) - 1
        x += round(wide + 1.5 * size)
    return made
