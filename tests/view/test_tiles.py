"""Pictures that a model sees in tiles: each view is drawn over its own tile."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import foveate
from foveate.answering import answer
from foveate.cli import app
from foveate.errors import InvalidParameter
from foveate.families.base import raster
from foveate.families.tiles import stitched
from foveate.view import Views, overlay, overlay_sheet, seen_by_item
from foveate.view.views import separate_views
from tests.checkpoints import save_checkpoint
from tests.families import zoo
from tests.view.tracing import report_of, trace_of

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200)]
# Columns and rows of the tiles of a picture of 600 x 400.
ARRANGED = {"internvl": (3, 2), "idefics3": (2, 2), "smolvlm": (2, 2)}


@cache
def checkpoint(family: str) -> Path:
    return save_checkpoint(family, Path(mkdtemp()))


def chequered(columns: int, rows: int, first: int = 0) -> Image.Image:
    """A picture of 600 x 400 with one colour per tile, row by row."""
    small = Image.new("RGB", (columns, rows))
    small.putdata([COLOURS[(first + i) % 6] for i in range(columns * rows)])
    return small.resize((600, 400), Image.Resampling.NEAREST)


def traced(family: str, images: list[Image.Image]):
    """The processor and the report of a call about pictures."""
    processor = foveate.load_processor(checkpoint(family))
    method = foveate.create("fastv", keep=0.5)
    return processor, answer(zoo.model(family), processor, images, "What?", method, 2).report


def middle(picture: Image.Image) -> np.ndarray:
    """The colour in the middle of a picture, away from the edges of its tile."""
    pixels = np.asarray(picture, int)
    height, width = pixels.shape[:2]
    part = pixels[height // 4 : -height // 4, width // 4 : -width // 4]
    return np.median(part.reshape(-1, 3), 0)


def views_of(items) -> list[tuple[str, Image.Image]]:
    assert all(isinstance(item, Views) for item in items)
    return [pair for item in items for pair in zip(item.names, item.pictures, strict=True)]


@pytest.mark.parametrize("family", [*ARRANGED, "llava_next", "qwen2_5_vl", "gemma3", "llava"])
@pytest.mark.parametrize("option", ["--overlay", "--heatmap"])
def test_a_tiled_picture_is_drawn_by_the_command_line(family, option, tmp_path):
    chequered(3, 2).save(tmp_path / "photo.png")
    arguments = ["ask", tmp_path / "photo.png", "-q", "What?", "--model", checkpoint(family)]
    arguments += ["--method", "fastv", "--max-new-tokens", "2", option, tmp_path / "o.png"]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert min(Image.open(tmp_path / "o.png").size) >= 300


@pytest.mark.parametrize("family", ARRANGED)
def test_each_view_shows_its_own_tile(family):
    columns, rows = ARRANGED[family]
    picture = chequered(columns, rows)
    processor, report = traced(family, [picture])
    *tiles, (name, overview) = views_of(seen_by_item([picture], processor, report.traces))
    assert [n for n, _ in tiles] == [f"tile {i + 1} of {len(tiles)}" for i in range(len(tiles))]
    assert len(tiles) == columns * rows and name == "overview"
    for (_, tile), colour in zip(tiles, COLOURS, strict=False):
        assert np.abs(middle(tile) - colour).max() < 12
    assert np.asarray(overview).reshape(-1, 3).std(0).min() > 40


@pytest.mark.parametrize("family", ARRANGED)
def test_two_pictures_of_one_question_have_their_own_tiles(family):
    columns, rows = ARRANGED[family]
    pictures = [chequered(columns, rows), chequered(columns, rows, first=2)]
    processor, report = traced(family, pictures)
    shown = seen_by_item(pictures, processor, report.traces)
    views = views_of(shown)
    half, count = len(views) // 2, columns * rows
    for start, first in ((0, 0), (half, 2)):
        for i, (name, tile) in enumerate(views[start : start + count]):
            assert name == f"picture {1 + (start > 0)}, tile {i + 1} of {count}"
            assert np.abs(middle(tile) - COLOURS[(first + i) % 6]).max() < 12
        assert views[start + count][0] == f"picture {1 + (start > 0)}, overview"
    assert overlay_sheet(shown, report).width >= 480


def test_panels_of_a_sheet_are_the_tiles_in_order():
    tiles = [Image.new("RGB", (64, 64), colour) for colour in COLOURS[:3]]
    trace = trace_of(raster(3, 1, 1), [0, 1, 2])
    drawn = np.asarray(overlay(Views(tiles, ["a", "b", "c"]), trace), int)
    row = drawn[drawn.shape[0] // 3]
    for i, colour in enumerate(COLOURS[:3]):
        assert np.abs(row[drawn.shape[1] * (2 * i + 1) // 6] - colour).max() < 12


def test_one_picture_is_not_drawn_for_several_views():
    trace = trace_of(raster(3, 2, 2), list(range(12)))
    for draw in (overlay, lambda image, one: overlay_sheet([image], report_of(one))):
        with pytest.raises(InvalidParameter, match="1 picture for a visual item with 3 views"):
            draw(Image.new("RGB", (64, 64)), trace)
    with pytest.raises(InvalidParameter, match="2 pictures with 2 names"):
        overlay(Views([Image.new("RGB", (8, 8))] * 2, ["a", "b"]), trace)


@pytest.mark.parametrize("tiles", [(1, 1), (1, 2), (2, 2)])
def test_an_overview_and_stitched_tiles_show_one_picture(tiles):
    assert separate_views(stitched(4, tiles, (0, 0, 4 * tiles[0], 4 * tiles[1]))) == 1


def test_several_pictures_are_padded_where_only_one_is_tiled():
    picture = chequered(3, 2)
    processor, report = traced("llava_onevision", [picture, picture])
    shown = seen_by_item([picture, picture], processor, report.traces)
    assert [item.size for item in shown] == [(600, 600)] * 2
    processor, report = traced("llava_onevision", [picture])
    assert seen_by_item([picture], processor, report.traces) == [picture]


def test_crops_of_pan_and_scan_follow_the_overview():
    family, picture = "gemma3", chequered(2, 1)
    processor = foveate.load_processor(checkpoint(family))
    processor.images_kwargs = {**processor.images_kwargs, "do_pan_and_scan": True}
    processor.images_kwargs["pan_and_scan_min_crop_size"] = 100
    method = foveate.create("divprune", keep=4)
    report = answer(zoo.model(family), processor, [picture], "What?", method, 2).report
    (name, _), *tiles = views_of(seen_by_item([picture], processor, report.traces))
    assert name == "overview" and len(tiles) == 2
    for (_, tile), colour in zip(tiles, COLOURS, strict=False):
        assert np.abs(middle(tile) - colour).max() < 12
