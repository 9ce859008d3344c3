"""The sheet of one call: all its pictures, layer by layer, with one caption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import foveate
from foveate.errors import InvalidParameter
from foveate.families.base import raster
from foveate.view import overlay, overlay_sheet
from foveate.view.head import head_of, legend_of
from foveate.view.text import font, wrapped
from tests.view.tracing import layered, report_of, trace_of

RED = (255, 0, 0)


def red(width: int = 60, height: int = 60) -> Image.Image:
    return Image.new("RGB", (width, height), RED)


def panels(sheet: Image.Image) -> int:
    """How many red pictures, whatever was drawn on them, stand beside one another."""
    pixels = np.asarray(sheet, int)
    hit = (pixels[..., 0] - pixels[..., 1] > 15).any(0)
    starts = np.flatnonzero(np.diff(hit.astype(int), prepend=0) == 1)
    return len(starts)


ALL = list(range(4))


def test_one_picture_with_its_caption_above():
    sheet = overlay_sheet([red()], report_of(trace_of(raster(1, 1, 1), [0])), question="q?")
    pixels = np.asarray(sheet)
    assert panels(sheet) == 1
    assert (pixels[:60] < 100).all(2).any(), "text above"


def test_the_caption_names_method_ratio_question_and_answer():
    head = head_of(report_of(trace_of(raster(1, 2, 2), [0, -1, -1, -1])), "what is it?", "a cup")
    assert head.title == "DivPrune(keep=0.25)"
    assert list(head.lines) == [
        "1 of 4 visual tokens (retention ratio 25.0 %)",
        "Question: what is it?",
        "Answer: a cup",
    ]


def test_the_ratio_of_pruning_inside_the_llm_is_the_mean_over_layers():
    trace = layered(raster(1, 2, 2), (0, 0, ALL), (1, 3, [0, -1, -1, -1]))
    assert head_of(report_of(trace)).lines[0] == (
        "4 of 4 visual tokens in the first layer, 1 in the last "
        "(mean retention ratio over the layers 43.8 %)"
    )


def test_each_change_between_layers_has_a_picture():
    trace = layered(raster(1, 2, 2), (0, 0, ALL), (1, 2, [0, 1, -1, -1]), (3, 3, [0, -1, -1, -1]))
    assert panels(overlay_sheet([red()], report_of(trace))) == 3


def test_items_with_layers_have_a_row_each():
    trace = layered(raster(1, 2, 2), (0, 0, ALL), (1, 3, [0, 1, -1, -1]))
    one = overlay_sheet([red()], report_of(trace))
    two = overlay_sheet([red(), red()], report_of(trace, trace))
    assert panels(two) == 2 and two.height > 1.5 * one.height


@pytest.mark.parametrize(("size", "grid"), [((1600, 8), (1, 57)), ((8, 1600), (57, 1))])
def test_cells_of_narrow_pictures_can_be_seen(size, grid):
    """A dropped cell is dark: every other cell of a strip, in each of three layer ranges."""
    cells = [i if i % 2 else -1 for i in range(57)]
    held = [n // 2 if n >= 0 else -1 for n in cells]
    trace = layered(raster(1, *grid), (0, 0, list(range(57))), (1, 2, held), (3, 3, held))
    for draw in (overlay_sheet([red(*size)], report_of(trace)), overlay(red(*size), trace)):
        hit = np.asarray(draw, int)
        hit = hit[..., 0] - hit[..., 1] > 60
        assert hit.any(0).sum() > 24 and hit.any(1).sum() > 24, "both sides"
    assert max(overlay_sheet([red(*size)], report_of(trace)).size) <= 1700


@pytest.mark.parametrize("size", [(8, 8), (2000, 4), (4, 2000), (3000, 2000), (200, 600)])
def test_the_sheet_has_room_for_text_and_fits_a_screen(size):
    report = report_of(trace_of(raster(1, 2, 2), [0, -1, 1, -1]))
    sheet = overlay_sheet([red(*size)], report, question="what? " * 30, answer="x" * 300)
    assert 480 <= sheet.width <= 1300 and sheet.height <= 1700


def test_frames_of_a_video_stand_in_rows():
    trace = trace_of(raster(16, 2, 2), list(range(64)))
    frames = [red(90, 60) for _ in range(32)]
    sheet = overlay_sheet([frames], report_of(trace))
    assert panels(sheet) == 8 and sheet.width < 1600


def test_the_legend_has_only_what_is_drawn():
    def said(trace, span=None):
        return [text.split(":")[0].split(",")[0] for _, text in legend_of([(trace, span)])]

    grid = raster(1, 2, 2)
    assert said(trace_of(grid, ALL)) == ["kept"]
    assert said(trace_of(grid, [0, -1, -1, 1])) == ["kept", "dropped"]
    assert said(trace_of(grid, [0, 0, 1, 1])) == ["merged"]
    assert said(trace_of(grid, [0, 0, 1, 1], drawn_as="smaller")) == ["smaller picture"]
    trace = layered(grid, (0, 0, [0, -1, -1, -1]), (1, 1, [0, 1, -1, -1]))
    assert said(trace, trace.by_layer[0]) == ["kept", "skips these layers", "dropped"]


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("FastV()", "FastV(keep=0.5)"),
        ("FastV(k=3)", "FastV(keep=0.5, k=3)"),
        ("DivPrune(keep=64) + FastV()", "DivPrune(keep=64) + FastV(keep=0.5)"),
        ("TCLLaVA()", "TCLLaVA()"),
        ("Unregistered()", "Unregistered()"),
        ("", "full model"),
    ],
)
def test_the_title_names_the_budget_also_where_it_is_the_default(method, title):
    report = report_of(trace_of(raster(1, 2, 2), ALL), method=method)
    assert head_of(report).title == title


def test_lines_never_leave_the_picture():
    for text in ("one two three four five six seven", "a" * 200, "", "x " * 50, "\n\n"):
        assert all(font(16).getlength(line) <= 150 for line in wrapped(text, 150, 16))
        assert "".join(wrapped(text, 150, 16)).replace(" ", "") == text.replace(" ", "").replace(
            "\n", ""
        )


def test_items_and_pictures_must_agree():
    with pytest.raises(InvalidParameter, match="1 pictures for a call with 2 visual items"):
        trace = trace_of(raster(1, 2, 2), ALL)
        overlay_sheet([red()], report_of(trace, trace))


@pytest.mark.parametrize(
    ("slug", "count"), [("divprune", 1), ("fastv", 2), ("pyramiddrop", 4), ("tome", 1), ("aim", 4)]
)
def test_real_calls(slug, count):
    model, processor = foveate.mini("nano")
    inputs = processor(images=red(64, 64), text="<image> what?", return_tensors="pt")
    with foveate.attach(model, foveate.create(slug, keep=0.5)) as att, torch.no_grad():
        model(**inputs)
    assert len(att.report.traces[0].by_layer) == count
    assert overlay_sheet([red(64, 64)], att.report).width >= 480
