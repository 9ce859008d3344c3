"""Draw on a picture which of its patches are kept, which are merged and which are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from foveate.view.bands import low_pass
from foveate.view.colours import group_colours
from foveate.view.planes import Plane, planes
from foveate.view.sheet import side_by_side
from foveate.view.sizes import columns_for, enlarged, legible, panel_height, to_height
from foveate.view.views import Media, check_views, pictures_in, view_name

_DIM = 0.22
"""Brightness that a dropped patch is left with: enough to see what was there."""

_SKIPPED = 0.55
"""Brightness of a patch that these layers skip and later ones process again."""

_LINE = 0.5
"""Share of white in the lines between kept patches."""

_EDGE = 0.75
"""Share of white in the line around kept patches, inside a dark one: shows on every picture."""


def overlay(
    image: Media,
    trace: Any,
    *,
    finest: bool = False,
    span: Any = None,
) -> Image.Image:
    """The picture with its kept, merged and dropped patches.

    Kept patches are unchanged within a dark and a light line. The patches of a merged token have
    their mean colour, and each part of it has a border; border colours differ between tokens, as
    far as there are colours. Dropped patches are dark.

    Args:
        image: the part of the picture that the model saw (see `seen`), the frames of a video, or
            the `Views` of an item that the model saw in tiles (see `seen_by_item`).
        trace: one of `att.report.traces`. Where the item has several planes (the overview and the
            tiles of a picture, the frames of a video) they stand side by side with captions.
        finest: draw only the plane with the most cells.
        span: one of `trace.by_layer`, to draw what these layers process; by default what is left
            after the last layer.
    """
    all_planes = planes(trace, None if span is None else span.assign)
    if not all_planes:
        return pictures_in(image)[0].convert("RGB")
    if finest:
        all_planes = [max(all_planes, key=lambda plane: plane.holder.size)]
    pictures = pictures_of(image, all_planes, trace.layout)
    if len(all_planes) == 1:
        pictures = [enlarged(pictures[0], all_planes[0].shape)]
        return paint(pictures, all_planes, trace, span)[0]
    columns = columns_for(pictures, min(len(all_planes), 4 if len(all_planes) <= 8 else 8))
    height = panel_height(pictures, [plane.shape for plane in all_planes], columns)
    panels = paint([to_height(p, height) for p in pictures], all_planes, trace, span)
    captions = [
        f"{view_name(plane.t, trace.layout, image)}: {plane.kept} tokens for "
        f"{plane.holder.size} patches"
        for plane in all_planes
    ]
    return side_by_side(panels, captions, columns=columns)


def pictures_of(media: Media, all_planes: Sequence[Plane], layout: Any) -> list[Image.Image]:
    """The picture of each plane: its view, or the first frame of its temporal step."""
    check_views(media, layout)
    pictures, steps = pictures_in(media), layout.grid.t
    shown = [pictures[plane.t * len(pictures) // steps] for plane in all_planes]
    return [legible(picture.convert("RGB")) for picture in shown]


def paint(
    pictures: Sequence[Image.Image], all_planes: Sequence[Plane], trace: Any, span: Any = None
) -> list[Image.Image]:
    """One picture per plane, drawn on at its own size."""
    back = returning(trace, span)
    drawn_as = trace.drawn_as
    shown = [
        _reduced(picture, plane, trace) for picture, plane in zip(pictures, all_planes, strict=True)
    ]
    cells = [Cells(p, picture.size) for p, picture in zip(all_planes, shown, strict=True)]
    pixels = [np.asarray(picture, np.float32) for picture in shown]
    tokens = max(int(plane.holder.max()) for plane in all_planes) + 1
    means = _means(pixels, [c.holder for c in cells], tokens)
    colours = _border_colours(all_planes, tokens)
    made = []
    for plane, cell, x in zip(all_planes, cells, pixels, strict=True):
        grey = x.mean(2, keepdims=True)
        skipped = cell.of(back[plane.slot] & (plane.slot >= 0) & (plane.holder < 0))
        light = np.where(skipped, _SKIPPED, _DIM)[..., None]
        drawn = np.where(cell.holder[..., None] < 0, light * (0.4 * x + 0.6 * grey), x)
        merged = cell.of(plane.slots > 1)
        if drawn_as in ("patches", "pooled"):
            drawn = np.where(merged[..., None], means[cell.holder], drawn)
        lines = colours[cell.holder] if drawn_as == "patches" else None
        drawn = _lines(drawn, cell, merged, lines)
        made.append(Image.fromarray(np.rint(drawn).clip(0, 255).astype(np.uint8)))
    return made


def returning(trace: Any, span: Any) -> np.ndarray:
    """(S,) bool: slots that a layer after `span` processes, or that leave the last layer."""
    if span is None:
        return np.zeros(trace.layout.n, bool)
    after = [later.assign for later in trace.by_layer if later.first > span.last]
    return np.any([held.numpy() >= 0 for held in (trace.assign, *after)], axis=0)


class Cells:
    """A plane at the pixels of a picture."""

    def __init__(self, plane: Plane, size: tuple[int, int]):
        rows, columns = plane.shape
        width, height = size
        self.row = np.arange(height) * rows // height
        self.column = np.arange(width) * columns // width
        self.number = self.row[:, None] * columns + self.column
        self.holder = self.of(plane.holder)
        self.side = min(height / rows, width / columns)

    def of(self, table: np.ndarray) -> np.ndarray:
        """Values (rows, columns) at every pixel."""
        return table[self.row[:, None], self.column]


def _reduced(picture: Image.Image, plane: Plane, trace: Any) -> Image.Image:
    """The picture as far as the tokens can show it, at its own size."""
    if trace.drawn_as not in ("low-pass", "smaller") or (plane.slots <= 1).all():
        return picture
    rows = max(len(np.unique(column[column >= 0])) for column in plane.holder.T)
    columns = max(len(np.unique(row[row >= 0])) for row in plane.holder)
    if trace.drawn_as == "low-pass":
        return low_pass(picture, (max(rows, 1), max(columns, 1)))
    cell = trace.cell or 14
    small = picture.resize((columns * cell, rows * cell), Image.Resampling.BILINEAR)
    return small.resize(picture.size, Image.Resampling.NEAREST)


def _means(pixels: list[np.ndarray], holders: list[np.ndarray], tokens: int) -> np.ndarray:
    """Mean colour (tokens + 1, 3) of all pixels of each token, over all planes."""
    total = np.zeros((tokens + 1, 4))
    for x, holder in zip(pixels, holders, strict=True):
        labels = holder.ravel() % (tokens + 1)
        total[:, 3] += np.bincount(labels, minlength=tokens + 1)
        for c in range(3):
            total[:, c] += np.bincount(labels, x[..., c].ravel(), minlength=tokens + 1)
    return total[:, :3] / total[:, 3:].clip(min=1)


def _border_colours(all_planes: Sequence[Plane], tokens: int) -> np.ndarray:
    """Border colours (tokens + 1, 3): neighbouring numbers of merged tokens differ most."""
    groups = [plane.holder[plane.slots > 1] for plane in all_planes]
    merged = np.unique(np.concatenate(groups))
    colours = np.zeros((tokens + 1, 3), np.float32)
    colours[merged] = group_colours(len(merged))[: len(merged)]
    return colours


def _lines(drawn, cell: Cells, merged: np.ndarray, colours: np.ndarray | None) -> np.ndarray:
    """Lines around kept patches and cells, coloured ones around every part of a merged token."""
    if colours is None:
        labels = np.where(cell.holder >= 0, cell.holder, -1)
        frame = border(labels, 1) & (cell.holder >= 0)
        return _blended(drawn, frame, 255, _LINE)
    kept = (cell.holder >= 0) & ~merged
    drawn = _blended(drawn, border(cell.number, 1) & kept, 255, _LINE)
    if not kept.all():
        dark = border(kept, 1, edges=True) & kept
        drawn = _blended(drawn, border(kept, 2, edges=True) & kept & ~dark, 255, _EDGE)
        drawn = _blended(drawn, dark, 0, _EDGE)
    # Tokens meet: each draws its own side, so that both borders show.
    width = 1 if cell.side < 12 else 2 if cell.side < 24 else 3
    outline = border(np.where(merged, cell.holder, -1 - cell.number), width, edges=True) & merged
    return np.where(outline[..., None], colours, drawn)


def _blended(drawn: np.ndarray, where: np.ndarray, level: int, share: float) -> np.ndarray:
    return np.where(where[..., None], (1 - share) * drawn + share * level, drawn)


def border(labels: np.ndarray, width: int, edges: bool = False) -> np.ndarray:
    """Pixels within `width` of another label below or to the right, or above or to the left.

    edges: whether the sides of the picture count as another label.
    """
    near = np.zeros(labels.shape, bool)
    if edges:
        near[:width] = near[-width:] = near[:, :width] = near[:, -width:] = True
    for step in range(1, width + 1):
        down = labels[step:] != labels[:-step]
        across = labels[:, step:] != labels[:, :-step]
        near[:-step] |= down
        near[step:] |= down
        near[:, :-step] |= across
        near[:, step:] |= across
    return near
