"""The views of a visual item, such as tiles and an overview, and what captions call them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from foveate.errors import InvalidParameter


@dataclass(frozen=True)
class Views:
    """One picture per view of a visual item.

    Attributes:
        pictures: what the model saw in each view, in the order of `VisualTokens.view`.
        names: what captions call each view, such as "tile 1 of 4" or "overview".
    """

    pictures: Sequence[Image.Image]
    names: Sequence[str]


Media = Image.Image | Sequence[Image.Image] | Views
"""A picture, the frames of a video, or the views of an item."""


def pictures_in(media: Media) -> list[Image.Image]:
    """A picture as a list of one; frames and views as a list."""
    if isinstance(media, Image.Image):
        return [media]
    found = list(media.pictures if isinstance(media, Views) else media)
    if not found:
        raise InvalidParameter("There is no image to draw on; give an image or a list of frames.")
    return found


def separate_views(layout: Any) -> int:
    """Views of an item that need a picture each; 1 where every plane shows the whole picture.

    A stitched layout has an overview and one plane for all its tiles. Both show the whole picture.
    """
    steps = layout.position[:, 0]
    counts = [int((steps == t).sum()) for t in range(layout.grid.t)]
    if len(counts) != 2:
        return len(counts)
    second = steps == 1
    stitched = len(layout.view[second].unique()) > 1 or counts[0] != counts[1]
    rows = int(layout.position[second, 1].max()) + 1
    return 1 if stitched or int(layout.special.sum()) >= rows else 2


def check_views(media: Media, layout: Any) -> None:
    """Raise `InvalidParameter` for pictures that do not show the views of an item."""
    needed = separate_views(layout)
    given = len(pictures_in(media))
    if isinstance(media, Views) and (given != needed or len(media.names) != given):
        raise InvalidParameter(
            f"{given} pictures with {len(media.names)} names for a visual item with {needed} "
            "views; give one picture and one name per view."
        )
    if given < needed and given == 1:
        raise InvalidParameter(
            f"1 picture for a visual item with {needed} views; give the picture of each view, as "
            "foveate.view.seen_by_item returns them, or the frames of the video."
        )


def view_name(t: int, layout: Any, media: Media) -> str:
    """What captions call the plane `t` of an item."""
    if isinstance(media, Views):
        return media.names[t]
    frames, steps = len(pictures_in(media)), layout.grid.t
    if frames == 1:
        return f"view {t + 1}" if steps != 2 else ("overview", "tiles")[t]
    first, end = (step * frames // steps for step in (t, t + 1))
    return f"frame {first}" if end - first <= 1 else f"frames {first}-{end - 1}"
