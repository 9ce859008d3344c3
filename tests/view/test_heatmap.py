"""Heat maps of the scores by which a method ranked tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import foveate
from foveate.errors import InvalidParameter
from foveate.families.base import raster
from foveate.report import Scores
from foveate.view import Views, heatmap_sheet, seen
from foveate.view.colours import scale
from foveate.view.heatmap import Scale, legend_of_scores, score_rows
from tests.view.test_overlay import cells
from tests.view.tracing import layered, report_of, trace_of

GREY = Image.new("RGB", (64, 64), (128, 128, 128))
NAN = float("nan")


def scored(trace, *entries):
    """The trace with scores: (stage, layer, values) each."""
    made = tuple(Scores(s, k, "fastv", torch.tensor(values)) for s, k, values in entries)
    return replace(trace, scores=made)


def map_of(sheet: Image.Image) -> Image.Image:
    """The heat map of a sheet with one: what lies between the head and the colour bar."""
    pixels = np.asarray(sheet, int)
    middle = pixels[:, sheet.width // 2 - 20]
    paper = (middle == (250, 250, 248)).all(1)
    runs = np.flatnonzero(np.diff(np.concatenate([[True], paper, [True]]).astype(int)))
    starts, ends = runs[::2], runs[1::2]
    longest = int(np.argmax(ends - starts))
    left = np.flatnonzero(~(pixels[ends[longest] - 9] == (250, 250, 248)).all(1))
    return sheet.crop((left[0], starts[longest], left[-1] + 1, ends[longest]))


def lightness(colour: np.ndarray) -> np.ndarray:
    """OKLab lightness of sRGB colours (..., 3)."""
    c = np.asarray(colour) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    cone = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cone) @ np.array([0.2104542553, 0.7936177850, -0.0040720468])


def test_the_colour_scale_rises_evenly():
    steps = np.diff(lightness(scale(np.linspace(0, 1, 64))))
    assert (steps > 0).all() and steps.max() < 2.5 * steps.min()
    assert np.array_equal(scale(np.array([-1.0, 2.0])), scale(np.array([0.0, 1.0])))


def test_larger_scores_are_lighter():
    trace = scored(trace_of(raster(1, 2, 2), [0, 1, 2, 3]), ("tokens", None, [0.1, 0.4, 0.2, 0.3]))
    light = lightness(cells(map_of(heatmap_sheet([GREY], report_of(trace))), 2, 2)).flatten()
    assert np.argsort(light).tolist() == [0, 2, 3, 1]


def test_patches_without_a_score_are_dark_and_without_colour():
    trace = scored(trace_of(raster(1, 2, 2), [0, -1, -1, 1]), ("layers", 2, [1.0, NAN, 2.0, 3.0]))
    drawn = cells(map_of(heatmap_sheet([GREY], report_of(trace))), 2, 2)
    assert np.ptp(drawn[0, 1]) == 0 and drawn[0, 1].max() < 60
    assert np.ptp(drawn[0, 0]) > 10


def test_kept_patches_are_enclosed():
    trace = scored(
        trace_of(raster(1, 2, 2), [0, -1, -1, -1]), ("tokens", None, [4.0, 3.0, 2.0, 1.0])
    )
    drawn = np.asarray(map_of(heatmap_sheet([GREY], report_of(trace))), int)
    white = (drawn == 255).all(2)
    half = drawn.shape[0] // 2
    assert white[half - 1, : half - 1].all() and not white[half + 1 :].any()


def test_nothing_is_enclosed_where_every_patch_is_kept():
    trace = scored(trace_of(raster(1, 2, 2), [0, 1, 2, 3]), ("caches", 0, [1.0, 2.0, 3.0, 4.0]))
    report = report_of(trace)
    drawn = np.asarray(map_of(heatmap_sheet([GREY], report)), int)
    assert not (drawn == 255).all(2).any()
    assert [text for _, text in legend_of_scores(report.traces)] == ["score"]


def test_captions_name_the_method_and_the_layer():
    values = [4.0, 3.0, 2.0, 1.0]
    trace = scored(trace_of(raster(1, 2, 2), [0, 1, 2, 3]), ("layers", 2, values))
    (row,) = score_rows(GREY, trace)
    assert row.captions == ["FastV scores before layer 2"]
    views = Views([GREY], ["tile 1 of 4"])
    (row,) = score_rows(views, trace)
    assert row.captions == ["tile 1 of 4, FastV scores before layer 2"]


def test_each_ranking_has_a_map_with_its_own_kept_patches():
    trace = layered(raster(1, 2, 2), (0, 1, [0, 1, 2, 3]), (2, 3, [0, 1, -1, -1]))
    one = scored(trace, ("layers", 2, [4.0, 3.0, 2.0, 1.0]))
    two = scored(trace, ("layers", 2, [4.0, 3.0, 2.0, 1.0]), ("layers", 3, [2.0, 1.0, NAN, NAN]))
    first, both = (heatmap_sheet([GREY], report_of(t)) for t in (one, two))
    assert both.width > 1.4 * first.width


@pytest.mark.parametrize(
    ("values", "log"),
    [([0.1, 0.2, 0.3], False), ([0.001, 0.002, 0.9], True), ([-1.0, 0.01, 5.0], False)],
)
def test_skewed_scores_have_a_logarithmic_scale(values, log):
    over = Scale.of(np.array([*values, NAN]))
    assert over.log == log and (over.low, over.high) == (min(values), max(values))
    at = over(np.array(values))
    assert at[0] == 0 and at[-1] == 1 and (np.diff(at) > 0).all()


def test_equal_scores_and_none_at_all_have_a_scale():
    assert (Scale.of(np.full(4, 0.5))(np.full(4, 0.5)) == 0.5).all()
    assert np.isfinite(Scale.of(np.full(4, NAN))(np.zeros(4))).all()


def test_frames_share_one_scale():
    frames = [GREY, GREY]
    trace = scored(trace_of(raster(2, 1, 1), [0, 1]), ("tokens", None, [1.0, 2.0]))
    sheet = np.asarray(heatmap_sheet([frames], report_of(trace)), int)
    assert sheet.shape[1] > 900


def test_methods_without_scores_are_refused():
    with pytest.raises(InvalidParameter, match="no recorded token scores"):
        heatmap_sheet([GREY], report_of(trace_of(raster(1, 2, 2), [0, 1, 2, 3])))


@pytest.mark.parametrize("slug", ["fastervlm", "fastv", "visionzip", "tca", "aim", "lvlm_csp"])
def test_real_scores(slug):
    model, processor = foveate.mini("nano")
    inputs = processor(images=GREY, text="<image> what?", return_tensors="pt")
    method = foveate.create(slug, keep=0.5)
    with foveate.attach(model, method, record_scores=True) as att, torch.no_grad():
        model(**inputs)
    assert heatmap_sheet([seen(GREY, processor)], att.report, question="what?").width >= 480
