"""Pictures of methods that keep every token: what changes in attention instead.

The methods run as they are; what is drawn was recorded from their own calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image, ImageDraw

import foveate
from foveate.answering import answer
from foveate.methods.layers import tc_llava
from foveate.report import LayerSpan
from foveate.view import Head, seen, side_by_side
from foveate.view.colours import INK, PAPER
from foveate.view.head import head_of, mark
from foveate.view.overlay import paint
from foveate.view.planes import planes
from foveate.view.report_sheet import layers
from foveate.view.sizes import to_height

_NONE, _AS_EVER, _NEW = (44, 44, 48), (196, 198, 204), (0, 114, 178)
_SIDE = 330


@contextmanager
def recorded(cls: type, name: str, see: Callable[..., None]) -> Iterator[None]:
    """While open, `see(part, call, result)` is told of every call of a method's function."""
    original = getattr(cls, name)

    def told(self: Any, call: Any, *more: Any) -> Any:
        result = original(self, call, *more)
        see(self, call, result)
        return result

    with patch.object(cls, name, told):
        yield


def tc_llava_picture(
    model: Any, processor: Any, picture: Image.Image, question: str
) -> Image.Image:
    """Pairs of tokens that attend, and position ids."""
    found: dict[str, Any] = {}

    def attention(part: Any, call: Any, result: Any) -> None:
        if call.prefill and "seen" not in found:
            found["seen"] = call.seen()[0, 0].numpy()
            found["visible"] = tc_llava.visible(call)[0, 0].numpy()
            found["visual"] = call.queries.visual[0].numpy()

    def places(part: Any, columns: Any, result: Any) -> None:
        found.setdefault("order", columns.order[0].numpy())
        found.setdefault("ids", result[0].numpy())

    cls = foveate.TCLLaVA
    with recorded(cls, "attend", attention), recorded(cls, "place", places):
        said = answer(model, processor, [picture], question, cls(), 6)
    kinds = np.where(found["seen"], 1, np.where(found["visible"], 2, 0))
    panels = [
        to_height(seen(picture, processor), _SIDE),
        _matrix(kinds, found["visual"]),
        _lines([found["order"], found["ids"]]),
    ]
    captions = [
        "input image",
        "attention in every layer: rows are queries, columns are keys",
        f"position id per token: full model up to {found['order'].max():g}, with the method up to "
        f"{found['ids'].max():g}",
    ]
    return side_by_side(panels, captions, head=_head(said, question, "with the method only"))


def vista_llama_picture(
    model: Any, processor: Any, picture: Image.Image, question: str
) -> Image.Image:
    """Pairs of tokens whose logits are computed without rotary position embeddings."""
    found: dict[str, Any] = {}

    def attention(part: Any, call: Any, result: Any) -> None:
        if call.prefill and "seen" not in found:
            found["seen"] = call.seen()[0, 0].numpy()
            found["raw"] = part.raw(call.keys)[0].numpy()
            found["visual"] = call.queries.visual[0].numpy()

    cls = foveate.VistaLLaMA
    with recorded(cls, "attend", attention):
        said = answer(model, processor, [picture], question, cls(), 6)
    kinds = np.where(found["seen"], 1 + found["raw"][None], 0)
    panels = [to_height(seen(picture, processor), _SIDE), _matrix(kinds, found["visual"])]
    captions = ["input image", "attention in every layer: rows are queries, columns are keys"]
    head = _head(said, question, "attends without rotary position embeddings")
    return side_by_side(panels, captions, head=head)


def zipvl_picture(model: Any, processor: Any, picture: Image.Image, question: str) -> Image.Image:
    """The important tokens of each layer."""
    found: dict[int, torch.Tensor] = {}

    def attention(part: Any, call: Any, result: Any) -> None:
        if call.prefill:
            chosen = call.notes[f"layer {call.layer}"][0]
            found[call.layer] = chosen[call.queries.visual[0]]

    cls = foveate.ZipVL
    with recorded(cls, "attend", attention):
        said = answer(model, processor, [picture], question, cls(), 6)
    (trace,) = said.report.traces
    spans = [
        LayerSpan(i, i, int(held.sum()), torch.where(held, held.cumsum(0) - 1, -1))
        for i, held in sorted(found.items())
    ]
    shown = to_height(seen(picture, processor), 230)
    panels, captions = [shown], ["input image"]
    for span in spans:
        panels += paint([shown], planes(trace, span.assign), replace(trace, by_layer=()), None)
        captions.append(f"{layers(span)}: {span.tokens} important tokens")
    legend = [
        (mark((206, 206, 210), (255, 255, 255)), "important: attends, cached in 4 bits"),
        (mark((40, 40, 42), (40, 40, 42)), "other: skips attention, cached in 2 bits"),
    ]
    return side_by_side(
        panels, captions, columns=5, head=head_of(said.report, question, said.text, legend)
    )


def yopo_picture(model: Any, processor: Any, picture: Image.Image, question: str) -> Image.Image:
    """Which layers process visual tokens, and which patches one patch attends to."""
    found: dict[str, Any] = {}
    cls = foveate.YOPO
    method = cls(keep=0.5)

    def attention(part: Any, call: Any, result: Any) -> None:
        if call.prefill and "near" not in found:
            visual = call.queries.visual[0]
            near = part.visible(call, part.attncut_w)[0, 0][visual][:, visual]
            found["near"] = near

    with recorded(cls, "attend", attention):
        said = answer(model, processor, [picture], question, method, 6)
    (trace,) = said.report.traces
    shown = to_height(seen(picture, processor), 280)
    panels, captions = [shown], ["input image"]
    for span in trace.by_layer:
        panels += paint([shown], planes(trace, span.assign), trace, span)
        captions.append(f"{layers(span)}: {span.tokens} tokens")
    grid = trace.layout.grid
    centre = (grid.h // 2) * grid.w + grid.w // 2
    held = found["near"][centre]
    assign = torch.where(held, held.cumsum(0) - 1, -1)
    panels += paint([shown], planes(trace, assign), trace, None)
    captions.append(
        f"the {int(held.sum())} patches that the patch in the middle of them attends to, "
        f"{layers(trace.by_layer[0])}"
    )
    legend = [
        (mark((206, 206, 210), (255, 255, 255)), "kept"),
        (mark((40, 40, 42), (40, 40, 42)), "dropped, or not attended to"),
    ]
    return side_by_side(panels, captions, head=head_of(said.report, question, said.text, legend))


def _head(said: Any, question: str, new: str) -> Head:
    legend = [
        (mark(_AS_EVER, _AS_EVER), "attends as in the full model"),
        (mark(_NEW, _NEW), f"attends {new}" if new.startswith("with ") else new),
        (mark(_NONE, _NONE), "does not attend"),
    ]
    return head_of(said.report, question, said.text, legend)


def _matrix(kinds: np.ndarray, visual: np.ndarray) -> Image.Image:
    """Pairs (queries, keys) in their colours, with lines where visual tokens begin and end."""
    pixels = np.array([_NONE, _AS_EVER, _NEW], np.uint8)[kinds]
    scale = max(1, round(_SIDE / len(kinds)))
    drawn = Image.fromarray(pixels).resize(
        (scale * len(kinds), scale * len(kinds)), Image.Resampling.NEAREST
    )
    pen = ImageDraw.Draw(drawn)
    for edge in np.flatnonzero(np.diff(visual.astype(int))) + 1:
        at = int(edge) * scale
        pen.line((at, 0, at, drawn.height), (230, 160, 0))
        pen.line((0, at, drawn.width, at), (230, 160, 0))
    return drawn


def _lines(rows: list[np.ndarray]) -> Image.Image:
    """Values per token as curves, the first in grey and the second in colour."""
    drawn = Image.new("RGB", (_SIDE, _SIDE), PAPER)
    pen = ImageDraw.Draw(drawn)
    top = max(float(row.max()) for row in rows)
    for row, colour in zip(rows, ((150, 150, 156), _NEW), strict=True):
        points = [
            (i * (_SIDE - 1) / (len(row) - 1), (_SIDE - 3) * (1 - float(v) / top) + 1)
            for i, v in enumerate(row)
        ]
        pen.line(points, colour, 2)
    pen.line([(0, 0), (0, _SIDE - 1), (_SIDE - 1, _SIDE - 1)], INK)
    return drawn


RULES = {
    "tc_llava": tc_llava_picture,
    "vista_llama": vista_llama_picture,
    "yopo": yopo_picture,
    "zipvl": zipvl_picture,
}
