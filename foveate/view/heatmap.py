"""Heat maps: the scores by which a method ranked the tokens, over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from foveate.errors import InvalidParameter
from foveate.view.colours import INK, PAPER, scale
from foveate.view.head import head_of, mark
from foveate.view.overlay import Cells, border, pictures_of
from foveate.view.planes import Plane, planes
from foveate.view.report_sheet import check_media, item_name
from foveate.view.rows import Row, joined, sheet_of
from foveate.view.text import font, line_height
from foveate.view.views import Media, Views, view_name
from foveate.view.wording import method_name

_COLOUR = 0.74
"""Share of the score's colour; the rest is the picture in grey."""

_DIM = 0.3
"""Brightness of a patch without a score."""

_SKEWED = 10
"""Scores whose largest is so many times their median are drawn on a logarithmic scale."""

_BAR = 12
_TEXT = 14

_PLACES = {"encoders": "inside the vision encoder", "tokens": "before the LLM"}


@dataclass(frozen=True)
class Scale:
    """From scores to places in [0, 1] on the colour scale.

    Attributes:
        low: smallest score.
        high: largest score.
        log: whether equal steps are equal ratios.
    """

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        """The scale of scores (n,); NaN and infinite ones do not count."""
        real = values[np.isfinite(values)]
        if not len(real):
            return cls(0.0, 1.0, False)
        low, high = float(real.min()), float(real.max())
        return cls(low, high, low > 0 and high > _SKEWED * float(np.median(real)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Places of scores, 0 for the lowest."""
        low, high = self.low, self.high
        if self.log:
            values = np.log(np.maximum(values, low))
            low, high = np.log(low), np.log(high)
        return np.clip((values - low) / (high - low) if high > low else values * 0 + 0.5, 0, 1)


def heatmap_sheet(
    media: Sequence[Media], report: Any, *, question: str = "", answer: str = ""
) -> Image.Image:
    """The scores of every place where a method ranked tokens, side by side over the picture.

    Each heat map has a colour bar with its smallest and largest score; the scale is logarithmic
    ("log") where few scores are much larger than the others. White lines enclose the patches that
    are kept, patches without a score are dark.

    Args:
        media: per visual item of the call the picture that the model saw (see `seen`), the frames
            of a video, or the `Views` of an item seen in tiles (see `seen_by_item`).
        report: `att.report` of a call of `foveate.attach(model, method, record_scores=True)`.
        question: for the caption.
        answer: for the caption.

    Raises:
        InvalidParameter: no scores were recorded.
    """
    check_media(media, report)
    rows = []
    for number, (item, trace) in enumerate(zip(media, report.traces, strict=True)):
        rows += score_rows(item, trace, item_name(item, number, len(media)))
    if not rows:
        raise InvalidParameter(
            f"{report.method or 'The full model'} has no recorded token scores; attach a method "
            "that ranks tokens with record_scores=True, or draw overlay_sheet."
        )
    legend = legend_of_scores(report.traces)
    return sheet_of(rows, head_of(report, question, answer, legend), len(media))


def score_rows(item: Media, trace: Any, name: str = "") -> list[Row]:
    """One row per place where the tokens of a visual item were ranked. name: of the item."""
    places = [_place(scores) for scores in trace.scores]
    rows = []
    for i, scores in enumerate(trace.scores):
        again = f" ({places[: i + 1].count(places[i])})" if places.count(places[i]) > 1 else ""
        caption = joined(name, f"{method_name(scores.method)} scores {places[i]}{again}")
        rows.append(_row(item, trace, scores, caption))
    return rows


def legend_of_scores(traces: Sequence[Any]) -> list[tuple[Image.Image, str]]:
    """What the marks of heat maps mean; nothing where nothing was ranked."""
    pairs = [(trace, scores) for trace in traces for scores in trace.scores]
    if not pairs:
        return []
    bar = np.rint(scale(np.linspace(0, 1, 16))).astype(np.uint8)
    legend = [(Image.fromarray(bar[None]), "score")]
    if any(_kept(trace, scores) is not None for trace, scores in pairs):
        legend.append((mark((150, 60, 60), (255, 255, 255)), "kept (outlined)"))
    if any(bool(s.values[~t.layout.special].isnan().any()) for t, s in pairs):
        legend.append((mark((60, 60, 62), (60, 60, 62)), "no score: dropped before"))
    return legend


def _place(scores: Any) -> str:
    """Where tokens were ranked, for captions."""
    if scores.layer is not None:
        return f"{'in' if scores.stage == 'caches' else 'before'} layer {scores.layer}"
    return _PLACES.get(scores.stage) or str(scores.stage)


def _row(item: Media, trace: Any, scores: Any, name: str) -> Row:
    kept = _kept(trace, scores)
    all_planes = planes(trace, kept)
    values = scores.values.numpy().astype(float)
    over = Scale.of(values[~trace.layout.special.numpy()])
    named = isinstance(item, Views) or len(all_planes) > 1
    captions = [
        joined(view_name(plane.t, trace.layout, item) if named else "", name)
        for plane in all_planes
    ]

    def draw(pictures: list[Image.Image]) -> list[Image.Image]:
        return [
            _drawn(picture, plane, values, over, kept is not None)
            for picture, plane in zip(pictures, all_planes, strict=True)
        ]

    return Row(
        pictures_of(item, all_planes, trace.layout),
        [plane.shape for plane in all_planes],
        captions,
        draw,
    )


def _kept(trace: Any, scores: Any) -> Any:
    """The tokens (S,) that hold each slot after this ranking.

    None where that is not known, and where every slot keeps a token of its own.
    """
    if scores.stage == "encoders":
        return None
    layer = scores.layer or 0
    found = next((s.assign for s in trace.by_layer if s.first <= layer <= s.last), None)
    every = found is not None and len(found.unique()) == len(found) and bool((found >= 0).all())
    return None if every else found


def _drawn(
    picture: Image.Image, plane: Plane, values: np.ndarray, over: Scale, enclose: bool
) -> Image.Image:
    """The heat map of one plane over its picture, with its colour bar below."""
    cells = Cells(plane, picture.size)
    table = np.where(plane.slot >= 0, values[plane.slot], np.nan)
    score = cells.of(table)
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    known = ~np.isnan(score)
    colour = scale(over(np.where(known, score, over.low)))
    drawn = np.where(known[..., None], _COLOUR * colour + (1 - _COLOUR) * grey, _DIM * grey)
    if enclose:
        held = plane.holder >= 0
        # Where every patch lives on in some token, those kept by themselves are enclosed.
        held = plane.slots == 1 if held.all() else held
        line = border(cells.of(held).astype(int), 1) & cells.of(held)
        drawn = np.where(line[..., None], 255, drawn)
    return _with_bar(drawn, over, float(grey.mean()))


def _with_bar(drawn: np.ndarray, over: Scale, grey: float) -> Image.Image:
    """A heat map (H, W, 3) with the colour bar below it."""
    height, width = drawn.shape[:2]
    ends = [_figure(over.low), "log" if over.log else "", _figure(over.high)]
    lengths = [font(_TEXT).getlength(text) for text in ends]
    top = height + _BAR + 4
    sheet = Image.new("RGB", (width, top + line_height(_TEXT)), PAPER)
    sheet.paste(Image.fromarray(np.rint(drawn).clip(0, 255).astype(np.uint8)), (0, 0))
    bar = _COLOUR * scale(np.linspace(0, 1, width)) + (1 - _COLOUR) * grey
    bar = np.repeat(np.rint(bar)[None].astype(np.uint8), _BAR, 0)
    sheet.paste(Image.fromarray(bar), (0, height + 4))
    if sum(lengths) + 2 * _TEXT < width:
        pen = ImageDraw.Draw(sheet)
        for text, x in zip(ends, (0, (width - lengths[1]) / 2, width - lengths[2]), strict=True):
            pen.text((x, top), text, INK, font(_TEXT))
    return sheet


def _figure(value: float) -> str:
    """A score with two digits that count."""
    return f"{value:.2g}"
