"""One sheet for one call: what became of the visual tokens of all its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from foveate.errors import InvalidParameter
from foveate.view.head import head_of, legend_of
from foveate.view.overlay import frames_of, paint, pictures_of, plane_name
from foveate.view.planes import Plane, planes
from foveate.view.sheet import side_by_side
from foveate.view.sizes import enlarged, panel_height, to_height

Media = Image.Image | Sequence[Image.Image]


@dataclass(frozen=True)
class Row:
    """The planes of one item that are drawn alike: all of them in the same layers.

    Attributes:
        pictures: one per plane.
        planes: the cells of each.
        name: what the item and the layers are called, empty where there is only one.
        names: what each plane is called, empty where there is only one.
        counts: tokens of each plane.
        draw: from pictures of the size that the sheet gives them to drawn ones.
    """

    pictures: list[Image.Image]
    planes: list[Plane]
    name: str
    names: list[str]
    counts: list[int]
    draw: Callable[[list[Image.Image]], list[Image.Image]]


def overlay_sheet(
    media: Sequence[Media], report: Any, *, question: str = "", answer: str = ""
) -> Image.Image:
    """All pictures of a call with their kept, merged and dropped patches, and one caption.

    Methods that prune inside the LLM get one picture per change ("layers 0-7: 64 tokens").

    Args:
        media: per visual item of the call the picture that the model saw (see `seen`), or the
            frames of a video.
        report: `att.report` of the call.
        question: for the caption.
        answer: for the caption.
    """
    check_media(media, report)
    rows, drawn = [], []
    for number, (item, trace) in enumerate(zip(media, report.traces, strict=True)):
        frames = frames_of(item)
        spans = trace.by_layer if len(trace.by_layer) > 1 else (None,)
        for span in spans:
            tokens = len(trace.index) if span is None else span.tokens
            parts = [f"picture {number + 1}"] if len(media) > 1 else []
            parts += [] if span is None else [layers(span)]
            rows.append(_row(frames, trace, span, ", ".join(parts), tokens))
            drawn.append((trace, span))
    head = head_of(report, question, answer, legend_of(drawn))
    return sheet_of([row for row in rows if row.planes], head, per_item(rows, media))


def per_item(rows: Sequence[Row], media: Sequence[Media]) -> int | None:
    """Rows that each item has, where it is several items with several rows each; else None."""
    count, rest = divmod(len(rows), len(media))
    return count if len(media) > 1 and 1 < count <= 8 and not rest else None


def check_media(media: Sequence[Media], report: Any) -> None:
    """Raise `InvalidParameter` unless there is one picture or video per visual item."""
    if not media or len(media) != len(report.traces):
        raise InvalidParameter(
            f"{len(media)} pictures for a call with {len(report.traces)} visual items; give one "
            "picture, or one list of frames, per entry of report.traces."
        )


def layers(span: Any) -> str:
    """The layers of a span, for captions."""
    return f"layer {span.first}" if span.first == span.last else f"layers {span.first}-{span.last}"


def _row(frames: list[Image.Image], trace: Any, span: Any, name: str, tokens: int) -> Row:
    all_planes = planes(trace, None if span is None else span.assign)
    several = len(all_planes) > 1
    return Row(
        pictures_of(frames, all_planes),
        all_planes,
        name,
        [plane_name(plane, all_planes, frames) if several else "" for plane in all_planes],
        [plane.kept for plane in all_planes] if several else [tokens],
        lambda pictures: paint(pictures, all_planes, trace, span),
    )


def sheet_of(rows: Sequence[Row], head: Any, columns: int | None = None) -> Image.Image:
    """Rows of pictures below a head. columns: pictures in a row where each item has one plane."""
    several = max(len(row.pictures) for row in rows)
    count = sum(len(row.pictures) for row in rows)
    columns = (
        several
        if len(rows) > 1 and 1 < several <= 8
        else columns or min(count, 4 if count <= 8 else 8)
    )
    if count == 1:
        pictures = [enlarged(rows[0].pictures[0], rows[0].planes[0].shape)]
        return side_by_side(rows[0].draw(pictures), [rows[0].name], head=head)
    pictures = [p for row in rows for p in row.pictures]
    shapes = [plane.shape for row in rows for plane in row.planes]
    height = panel_height(pictures, shapes, columns)
    panels, captions = [], []
    for row in rows:
        panels += row.draw([to_height(p, height) for p in row.pictures])
        for name, tokens in zip(row.names, row.counts, strict=True):
            about = ", ".join(part for part in (row.name, name) if part)
            captions.append(f"{about}: {tokens} tokens" if tokens != 1 else f"{about}: 1 token")
    return side_by_side(panels, captions, columns=columns, head=head)
