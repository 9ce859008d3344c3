"""Text on pictures: one font, lines that fit a width."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from PIL import ImageFont


@lru_cache(maxsize=32)
def font(size: int) -> Any:
    """The font that comes with Pillow, `size` pixels high; it knows Latin letters only."""
    return ImageFont.load_default(size)


def line_height(size: int) -> int:
    """Pixels from one line of text of `size` to the next."""
    return round(size * 1.35)


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines of `text` that are at most `width` pixels wide; words wider than that are divided."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            for piece in _pieces(word, width, size):
                longer = f"{line} {piece}" if line else piece
                if line and font(size).getlength(longer) > width:
                    lines.append(line)
                    longer = piece
                line = longer
        lines.append(line)
    return lines


def _pieces(word: str, width: int, size: int) -> list[str]:
    """A word in parts that fit the width, at least one letter each."""
    pieces, start = [], 0
    for end in range(1, len(word) + 1):
        if end - start > 1 and font(size).getlength(word[start:end]) > width:
            pieces.append(word[start : end - 1])
            start = end - 1
    return [*pieces, word[start:]]
