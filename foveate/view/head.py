"""The head of a sheet about one call: method, retention ratio, question, answer and legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from foveate.view.colours import group_colours
from foveate.view.overlay import returning
from foveate.view.planes import planes
from foveate.view.sheet import Head
from foveate.view.wording import percent, with_keep

_GREY = (206, 206, 210)


def head_of(
    report: Any,
    question: str = "",
    answer: str = "",
    legend: Sequence[tuple[Image.Image, str]] = (),
) -> Head:
    """What a sheet says about a call above its pictures."""
    lines = [
        retention(report),
        *_without_place(report.traces),
        question and f"Question: {question}",
        question and f"Answer: {answer or '(no words)'}",
    ]
    return Head(with_keep(report.method) or "full model", [line for line in lines if line], legend)


def retention(report: Any) -> str:
    """How many visual tokens of a call are kept, as one sentence."""
    full = sum(report.tokens_in)
    counts = [sum(layer) for layer in zip(*report.tokens_by_layer, strict=True)]
    if not full or not counts:
        return "no visual tokens"
    if len(set(counts)) == 1:
        ratio = percent(report.retention_ratio)
        return f"{counts[0]} of {full} visual tokens (retention ratio {ratio})"
    return (
        f"{counts[0]} of {full} visual tokens in the first layer, {counts[-1]} in the last "
        f"(mean retention ratio over the layers {percent(report.mean_retention_ratio)})"
    )


def _without_place(traces: Sequence[Any]) -> list[str]:
    """Sentences about tokens that have no place in the picture."""
    made = []
    special = sum(int(trace.layout.special.sum()) for trace in traces)
    if special:
        kept = sum(int((trace.assign[trace.layout.special] >= 0).sum()) for trace in traces)
        made.append(f"newline and other special tokens: {kept} of {special} kept")
    added = sum(int((trace.index < 0).sum()) for trace in traces)
    if added:
        made.append(f"tokens added without a patch, such as the class token: {added}")
    return made


def legend_of(drawn: Sequence[tuple[Any, Any]]) -> list[tuple[Image.Image, str]]:
    """What the marks of an overlay mean. drawn: pairs of a trace and its span that are shown."""
    kept = merged = dropped = skipped = False
    for trace, span in drawn:
        back = returning(trace, span)
        for plane in planes(trace, None if span is None else span.assign):
            inside = plane.slot >= 0
            absent = (plane.holder < 0) & inside
            kept |= bool((plane.slots == 1).any())
            merged |= bool((plane.slots > 1).any())
            skipped |= bool((absent & back[plane.slot]).any())
            dropped |= bool((absent & ~back[plane.slot]).any())
    kinds = {trace.drawn_as for trace, _ in drawn}
    entries = []
    if kept:
        entries.append((mark(_GREY, (255, 255, 255)), "kept"))
    if merged and "patches" in kinds:
        colour = tuple(int(c) for c in group_colours(1)[0])
        entries.append((mark(_GREY, colour), "merged: mean colour, one border colour per token"))
    if merged and "pooled" in kinds:
        entries.append((mark(_GREY, (255, 255, 255)), "one token per cell, in its mean colour"))
    if merged and "low-pass" in kinds:
        entries.append(
            (mark(_GREY, (255, 255, 255)), "low spatial frequencies, one token per cell")
        )
    if merged and "smaller" in kinds:
        entries.append((mark(_GREY, (255, 255, 255)), "smaller picture, one token per cell"))
    if skipped:
        entries.append((mark((104, 104, 108), (104, 104, 108)), "skips these layers"))
    if dropped:
        entries.append((mark((40, 40, 42), (40, 40, 42)), "dropped"))
    return entries


def mark(inside: tuple, border: tuple) -> Image.Image:
    """A small square for a legend, in an outline that shows on paper."""
    mark = np.empty((16, 16, 3), np.uint8)
    mark[:] = (120, 120, 124)
    mark[1:-1, 1:-1] = border
    mark[4:-4, 4:-4] = inside
    return Image.fromarray(mark)
