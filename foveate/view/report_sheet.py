"""One sheet for one call: what became of the visual tokens of all its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from foveate.errors import InvalidParameter
from foveate.view.head import head_of, legend_of
from foveate.view.overlay import paint, pictures_of
from foveate.view.planes import planes
from foveate.view.rows import Row, joined, sheet_of
from foveate.view.views import Media, Views, view_name


def overlay_sheet(
    media: Sequence[Media], report: Any, *, question: str = "", answer: str = ""
) -> Image.Image:
    """All pictures of a call with their kept, merged and dropped patches, and one caption.

    Methods that prune inside the LLM get one picture per change ("layers 0-7: 64 tokens").

    Args:
        media: per visual item of the call the picture that the model saw (see `seen`), the frames
            of a video, or the `Views` of an item seen in tiles (see `seen_by_item`).
        report: `att.report` of the call.
        question: for the caption.
        answer: for the caption.
    """
    check_media(media, report)
    rows, drawn = [], []
    for number, (item, trace) in enumerate(zip(media, report.traces, strict=True)):
        name = item_name(item, number, len(media))
        for span in trace.by_layer if len(trace.by_layer) > 1 else (None,):
            rows.append(_row(item, trace, span, name))
            drawn.append((trace, span))
    head = head_of(report, question, answer, legend_of(drawn))
    return sheet_of(rows, head, len(media))


def check_media(media: Sequence[Media], report: Any) -> None:
    """Raise `InvalidParameter` unless there is one picture or video per visual item."""
    if not media or len(media) != len(report.traces):
        raise InvalidParameter(
            f"{len(media)} pictures for a call with {len(report.traces)} visual items; give one "
            "picture, or one list of frames, per entry of report.traces."
        )


def item_name(item: Media, number: int, count: int) -> str:
    """What captions call one of `count` items; nothing where the names of its views say it."""
    return f"picture {number + 1}" if count > 1 and not isinstance(item, Views) else ""


def layers(span: Any) -> str:
    """The layers of a span, for captions."""
    return f"layer {span.first}" if span.first == span.last else f"layers {span.first}-{span.last}"


def _row(item: Media, trace: Any, span: Any, name: str) -> Row:
    all_planes = planes(trace, None if span is None else span.assign)
    names = [joined(name, "" if span is None else layers(span))]
    counts = [len(trace.index) if span is None else span.tokens]
    if isinstance(item, Views) or len(all_planes) > 1:
        names = [joined(*names, view_name(p.t, trace.layout, item)) for p in all_planes]
    if len(all_planes) > 1:
        counts = [plane.kept for plane in all_planes]
    captions = [
        name and f"{name}: {count} {'token' if count == 1 else 'tokens'}"
        for name, count in zip(names, counts, strict=True)
    ]
    return Row(
        pictures_of(item, all_planes, trace.layout),
        [plane.shape for plane in all_planes],
        captions,
        lambda pictures: paint(pictures, all_planes, trace, span),
    )
