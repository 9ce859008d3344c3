"""One sheet for one call: what became of the visual tokens of all its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from foveate.errors import InvalidParameter
from foveate.view.head import head_of, legend_of
from foveate.view.overlay import frames_of, paint, pictures_of, plane_name
from foveate.view.planes import planes
from foveate.view.rows import Media, Row, joined, sheet_of


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
        name = f"picture {number + 1}" if len(media) > 1 else ""
        for span in trace.by_layer if len(trace.by_layer) > 1 else (None,):
            rows.append(_row(frames_of(item), trace, span, name))
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


def layers(span: Any) -> str:
    """The layers of a span, for captions."""
    return f"layer {span.first}" if span.first == span.last else f"layers {span.first}-{span.last}"


def _row(frames: list[Image.Image], trace: Any, span: Any, name: str) -> Row:
    all_planes = planes(trace, None if span is None else span.assign)
    names = [joined(name, "" if span is None else layers(span))]
    counts = [len(trace.index) if span is None else span.tokens]
    if len(all_planes) > 1:
        names = [joined(*names, plane_name(plane, all_planes, frames)) for plane in all_planes]
        counts = [plane.kept for plane in all_planes]
    captions = [
        name and f"{name}: {count} {'token' if count == 1 else 'tokens'}"
        for name, count in zip(names, counts, strict=True)
    ]
    return Row(
        pictures_of(frames, all_planes),
        [plane.shape for plane in all_planes],
        captions,
        lambda pictures: paint(pictures, all_planes, trace, span),
    )
