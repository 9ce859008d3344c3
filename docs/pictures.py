"""`python -m docs.pictures [--out FOLDER]`: the pictures of the method pages and of the README.

The embedded model answers the same question about the same picture with each available method. One
PNG per method shows the picture, what is kept or merged (layer by layer where that changes), and
the scores by which tokens were ranked, where there are any. The README's kept.png is a sheet of
`make demo`, written to the folder above.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import foveate
from docs.attention_pictures import RULES
from foveate import demo
from foveate.answering import answer
from foveate.errors import BudgetError, MissingWeights
from foveate.view import seen, side_by_side
from foveate.view.head import head_of, legend_of
from foveate.view.heatmap import legend_of_scores, score_rows
from foveate.view.overlay import paint
from foveate.view.planes import planes
from foveate.view.report_sheet import layers
from foveate.view.sheet import beside, headed, stacked
from foveate.view.sizes import to_height

FOLDER = Path(__file__).resolve().parent / "methods"
SIZES = {"image": 112, "nano": 64}
"""The embedded models, the preferred one first, and the side of their pictures in pixels."""

KEEPS = (0.25, 0.5, None)
"""Budgets in the order of preference; None is the method's own."""

WIDTH = 1180
README_CASE = "locate"


def main(arguments: Sequence[str]) -> int:
    """Write one picture per available method."""
    folder = Path(arguments[1]) if arguments[:1] == ["--out"] and len(arguments) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    (folder.parent / "kept.png").write_bytes(png(demo_sheet()))
    for info in foveate.catalog():
        if info.status == "available":
            (folder / f"{info.slug}.png").write_bytes(png(sheet(info.slug)))
    return 0


def demo_sheet() -> Image.Image:
    """The sheet of `make demo` that the README shows."""
    model, processor = foveate.mini("nano")
    case = next(case for case in demo.cases() if case.name == README_CASE)
    return demo.sheet(case, demo.rows(model, processor, case, list(demo.METHODS)), processor)


def png(picture: Image.Image) -> bytes:
    """The picture as a small PNG: 256 colours, no dithering."""
    file = BytesIO()
    few = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return file.getvalue()


def sheet(slug: str) -> Image.Image:
    """The picture of one method."""
    model, processor, item, method = _setting(slug)
    picture = item.image()
    if slug in RULES:
        return RULES[slug](model, processor, picture, item.question)
    result = answer(model, processor, [picture], item.question, method, 6, record_scores=True)
    (trace,) = result.report.traces
    shown = seen(picture, processor)
    spans = trace.by_layer if len(trace.by_layer) > 1 else (None,)
    maps = score_rows(shown, trace)
    count = 1 + len(spans) + len(maps)
    columns = count if count <= 4 else min(max(1 + len(spans), len(maps)), 10)
    shown = to_height(shown, min(300, WIDTH // columns))
    panels, captions = [shown], ["input image"]
    for span in spans:
        tokens = len(trace.index) if span is None else span.tokens
        all_planes = planes(trace, None if span is None else span.assign)
        panels += paint([shown], all_planes, trace, span)
        captions.append(f"{_place(method, trace, span)}: {tokens} tokens")
    legend = [*legend_of([(trace, span) for span in spans]), *legend_of_scores([trace])]
    head = head_of(result.report, item.question, result.text, legend)
    sheets = [side_by_side(panels, captions, columns=columns)]
    if maps:
        drawn = [panel for row in maps for panel in row.draw([shown])]
        named = [caption for row in maps for caption in row.captions]
        sheets.append(side_by_side(drawn, named, columns=columns))
    return headed(beside(sheets) if count <= 4 else stacked(sheets), head)


def _place(method: Any, trace: Any, span: Any) -> str:
    """Where the tokens of a panel are counted."""
    if span is None and {"frames", "encoders", "tokens"} & {*method.stages}:
        return "before the LLM"
    return layers(span or trace.by_layer[0])


def _setting(slug: str) -> tuple[Any, Any, Any, Any]:
    """Model, processor, item and method: the first model and budget that the method runs with."""
    for name, size in SIZES.items():
        model, processor = foveate.mini(name)
        (item,) = foveate.mini.world.items("I1", "test", 1, size=size, start=26)
        for keep in KEEPS:
            try:
                method = foveate.create(slug, **({} if keep is None else {"keep": keep}))
                answer(model, processor, [item.image()], item.question, method, 1)
            except (BudgetError, MissingWeights):
                continue
            return model, processor, item, method
    raise SystemExit(f"{slug} runs on none of {', '.join(SIZES)}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
