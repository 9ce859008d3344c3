"""Text on pictures: a font that has its characters, lines that fit a width."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unicodedata import normalize

from PIL import ImageFont

_NOTE = "(text not drawable with this font)"

_SYSTEM = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc"),
    *("Arial Unicode.ttf", "PingFang.ttc", "arial.ttf", "msyh.ttc", "malgun.ttf", "Nirmala.ttf"),
)
"""Files of fonts of Linux, macOS and Windows that know more than Latin letters."""


def font(size: int, text: str = "") -> Any:
    """The font of `text`, `size` pixels high.

    It is the one that comes with Pillow, or a font of the system where that lacks a character.
    """
    if text.isascii():
        return _loaded(None, size)
    return _loaded(min(_files(), key=lambda file: len(_missing(text, file))), size)


def drawable(text: str) -> str:
    """The text with a note in place of the words that no font of this machine can draw.

    Accents that no font has are left out.
    """
    missing = _lacking(text)
    if missing:
        plain = {c: c.encode("ascii", "ignore").decode() for c in normalize("NFD", text)}
        text = "".join(
            "".join(plain[part] for part in normalize("NFD", c)) or c if c in missing else c
            for c in text
        )
        missing = _lacking(text)
    if not missing:
        return text
    word = rf"\S*[{re.escape(''.join(missing))}]\S*"
    return re.sub(f"{word}(?: +{word})*", _NOTE, text)


def _lacking(text: str) -> set[str]:
    """The characters that the best font of this machine for a text lacks."""
    if text.isascii():
        return set()
    return min((_missing(text, file) for file in _files()), key=len)


@lru_cache(maxsize=64)
def _loaded(file: str | None, size: int) -> Any:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


@lru_cache(maxsize=1)
def _files() -> list[str | None]:
    """Fonts that this machine has, the preferred one first; None is that of Pillow."""
    names = [*_SYSTEM]
    spec = find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
        names.insert(0, str(folder / "DejaVuSans.ttf"))
    found: list[str | None] = [None]
    for name in names:
        try:
            _loaded(name, 16)
        except OSError:
            continue
        found.append(name)
    return found


def _missing(text: str, file: str | None) -> set[str]:
    """The characters of a text for which a font has no glyph."""
    return {character for character in {*text} if not _known(character, file)}


@lru_cache(maxsize=4096)
def _known(character: str, file: str | None) -> bool:
    if character.isspace():
        return True
    drawn = _loaded(file, 16)
    # Every font draws characters that it lacks as it draws this one, which none has.
    box, mask = drawn.getmask("\U0010fffd"), drawn.getmask(character)
    return (mask.size, bytes(mask)) != (box.size, bytes(box))


def line_height(size: int) -> int:
    """Pixels from one line of text of `size` to the next."""
    return round(size * 1.35)


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines of `text` that are at most `width` pixels wide; words wider than that are divided."""
    lines = []
    for paragraph in drawable(text).split("\n"):
        line = ""
        for word in paragraph.split(" "):
            for piece in _pieces(word, width, size):
                longer = f"{line} {piece}" if line else piece
                if line and font(size, longer).getlength(longer) > width:
                    lines.append(line)
                    longer = piece
                line = longer
        lines.append(line)
    return lines


def _pieces(word: str, width: int, size: int) -> list[str]:
    """A word in parts that fit the width, at least one letter each."""
    pieces, start = [], 0
    for end in range(1, len(word) + 1):
        if end - start > 1 and font(size, word).getlength(word[start:end]) > width:
            pieces.append(word[start : end - 1])
            start = end - 1
    return [*pieces, word[start:]]
