"""Rows of pictures of one sheet, each drawn at the size that the sheet gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from foveate.view.sheet import Head, side_by_side
from foveate.view.sizes import columns_for, enlarged, panel_height, to_height


@dataclass(frozen=True)
class Row:
    """The planes of one item that are drawn alike.

    Attributes:
        pictures: one per plane.
        shapes: rows and columns of cells of each.
        captions: one per plane.
        draw: from pictures of the size that the sheet gives them to drawn ones.
    """

    pictures: list[Image.Image]
    shapes: list[tuple[int, int]]
    captions: list[str]
    draw: Callable[[list[Image.Image]], list[Image.Image]]


def sheet_of(rows: Sequence[Row], head: Head, items: int) -> Image.Image:
    """Rows of pictures below a head; each of several `items` with several rows starts a line."""
    several = max(len(row.pictures) for row in rows)
    count = sum(len(row.pictures) for row in rows)
    if count == 1:
        row = rows[0]
        return side_by_side(
            row.draw([enlarged(row.pictures[0], row.shapes[0])]), row.captions, head=head
        )
    columns = min(count, 4 if count <= 8 else 8)
    if len(rows) > 1 and 1 < several <= 8:
        columns = several
    elif items > 1 and len(rows) % items == 0 and 1 < len(rows) // items <= 8:
        columns = len(rows) // items
    pictures = [p for row in rows for p in row.pictures]
    columns = columns_for(pictures, columns)
    shapes = [shape for row in rows for shape in row.shapes]
    height = panel_height(pictures, shapes, columns)
    panels = [p for row in rows for p in row.draw([to_height(p, height) for p in row.pictures])]
    captions = [caption for row in rows for caption in row.captions]
    return side_by_side(panels, captions, columns=columns, head=head)


def joined(*parts: str) -> str:
    """The parts of a caption that say something."""
    return ", ".join(part for part in parts if part)
