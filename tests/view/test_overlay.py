"""What a drawing says about every patch: kept, merged or dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.errors import InvalidParameter
from foveate.families.base import raster
from foveate.report import Trace
from foveate.tokens import Layout
from foveate.view import overlay, planes
from tests.view.tracing import layered, trace_of


def joined(*layouts: Layout) -> Layout:
    """One item of several planes, as of a picture with an overview and tiles."""
    positions = []
    for t, layout in enumerate(layouts):
        position = layout.position.clone()
        position[~layout.special, 0] = t
        positions.append(position)
    position = torch.cat(positions)
    special = torch.cat([layout.special for layout in layouts])
    return Layout(position, position[:, 0], special, torch.arange(len(position))[:, None])


def cells(image: Image.Image, rows: int, columns: int) -> np.ndarray:
    """Mean colour (rows, columns, 3) of the inside of every cell."""
    pixels = np.asarray(image, float)
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    inner = pixels.reshape(rows, height, columns, width, 3)[:, 5:-5, :, 5:-5]
    return inner.mean((1, 3))


@pytest.fixture
def picture() -> Image.Image:
    return Image.new("RGB", (64, 64), (200, 160, 120))


def test_kept_patches_stay_and_dropped_ones_are_dim(picture):
    drawn = cells(overlay(picture, trace_of(raster(1, 2, 2), [0, -1, -1, 1])), 2, 2)
    assert np.allclose(drawn[0, 0], (200, 160, 120)) and np.allclose(drawn[1, 1], drawn[0, 0])
    assert drawn[0, 1].max() < 60 and drawn[1, 0].max() < 60


def test_all_kept_is_the_picture_within_thin_frames(picture):
    drawn = cells(overlay(picture, trace_of(raster(1, 4, 4), list(range(16)))), 4, 4)
    assert np.allclose(drawn, (200, 160, 120))


def test_merged_patches_have_the_mean_colour_of_their_group():
    picture = Image.new("RGB", (3, 2))
    picture.putdata([(255, 0, 0), (0, 0, 255), (0, 90, 0), (9, 9, 9), (0, 0, 0), (0, 0, 0)])
    picture = picture.resize((480, 320), Image.Resampling.NEAREST)
    drawn = cells(overlay(picture, trace_of(raster(1, 2, 3), [0, 0, 1, 2, 1, 1])), 2, 3)
    assert np.allclose(drawn[0, :2], (127.5, 0, 127.5), atol=1)
    assert np.allclose(drawn[[0, 1, 1], [2, 1, 2]], (0, 30, 0), atol=1)
    assert np.allclose(drawn[1, 0], (9, 9, 9))


def test_groups_have_outlines_and_no_lines_inside(picture):
    drawn = np.asarray(overlay(picture, trace_of(raster(1, 2, 2), [0, 0, 1, 1])), int)
    middle = drawn.shape[1] // 2
    assert np.array_equal(drawn[60, middle - 3], drawn[60, middle + 3])
    assert np.array_equal(drawn[60, middle], drawn[60, middle + 3])
    assert not np.array_equal(drawn[middle, 60], drawn[middle - 6, 60])


def test_newlines_have_no_place(picture):
    plain = raster(1, 2, 2)
    none = torch.full((2,), -1)
    layout = Layout(
        position=torch.cat([plain.position, none[:, None].expand(2, 3)]),
        view=torch.cat([plain.view, none]),
        special=torch.arange(6) >= 4,
        rows=torch.cat([plain.rows, none[:, None]]),
    )
    drawn = cells(overlay(picture, trace_of(layout, [0, 1, 2, 3, 4, -1])), 2, 2)
    assert np.allclose(drawn, (200, 160, 120))


def test_a_vector_without_a_place_draws_nothing(picture):
    trace = Trace(
        raster(1, 2, 2),
        torch.tensor([0, -1]),
        torch.tensor([0, -1, -1, -1]),
        torch.ones(2),
    )
    assert cells(overlay(picture, trace), 2, 2)[1, 1].max() < 60


def test_planes_of_a_tiled_picture_stand_side_by_side(picture):
    layout = joined(raster(1, 2, 2), raster(1, 4, 6))
    trace = trace_of(layout, [0, -1, -1, -1, *range(1, 13), *[-1] * 12])
    base, tiles = planes(trace)
    assert base.shape == (2, 2) and tiles.shape == (4, 6)
    assert (base.kept, tiles.kept) == (1, 12)
    both = overlay(picture, trace)
    assert both.width > 2 * both.height - 200
    finest = overlay(picture, trace, finest=True)
    assert finest.width == finest.height
    assert np.allclose(cells(finest, 4, 6)[0, 0], (200, 160, 120))


def test_frames_of_a_video_get_their_own_panel():
    frames = [Image.new("RGB", (32, 32), c) for c in ("red", "red", "lime", "lime")]
    drawn = np.asarray(overlay(frames, trace_of(raster(2, 2, 2), list(range(8)))))
    height = drawn.shape[0] // 3
    assert tuple(drawn[height, drawn.shape[1] // 6]) == (255, 0, 0)
    assert tuple(drawn[height, drawn.shape[1] * 5 // 6]) == (0, 255, 0)


def test_a_group_over_two_frames_is_merged_in_both():
    frames = [Image.new("RGB", (32, 32), "gray")] * 2
    first, second = planes(trace_of(raster(2, 1, 2), [0, 1, 0, 2]))
    assert first.slots.tolist() == [[2, 1]] and second.slots.tolist() == [[2, 1]]
    frames = [Image.new("RGB", (32, 32), c) for c in ("black", "white")]
    drawn = np.asarray(overlay(frames, trace_of(raster(2, 1, 2), [0, 1, 0, 2])), int)
    # The group's mean over both frames, in its left half of each.
    assert ((drawn == 128) | (drawn == 127)).all(2).sum() > 2 * 200 * 400


def test_wide_pictures_and_fine_grids():
    for size, grid in (((400, 2), (1, 200)), ((2, 400), (200, 1)), ((1, 1), (3, 3))):
        layout = raster(1, *grid)
        drawn = overlay(Image.new("RGB", size), trace_of(layout, list(range(layout.n))))
        assert 480 <= max(drawn.size) <= 1200 and min(drawn.size) >= 1


def test_nothing_to_draw_on(picture):
    trace = trace_of(raster(1, 2, 2), [0, 1, 2, 3])
    with pytest.raises(InvalidParameter, match="no image"):
        overlay([], trace)


def test_spans_draw_what_their_layers_process(picture):
    trace = layered(raster(1, 2, 2), (0, 1, [0, 1, 2, -1]), (2, 3, [0, -1, -1, -1]))
    first, last = (cells(overlay(picture, trace, span=span), 2, 2) for span in trace.by_layer)
    assert np.allclose(first[0], (200, 160, 120)) and first[1, 1].max() < 60
    assert np.allclose(last, cells(overlay(picture, trace), 2, 2))
    assert last[0, 1].max() < 60


def test_patches_that_later_layers_process_are_brighter_than_dropped_ones(picture):
    trace = layered(
        raster(1, 2, 2), (0, 0, [0, 1, 2, 3]), (1, 1, [0, -1, -1, -1]), (2, 2, [0, 1, -1, -1])
    )
    skipping = cells(overlay(picture, trace, span=trace.by_layer[1]), 2, 2)
    assert skipping[0, 1].max() > 2 * skipping[1, 0].max()


def test_pooled_tokens_are_cells_of_one_colour_each():
    picture = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    trace = trace_of(raster(1, 4, 4), [0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2, drawn_as="pooled")
    drawn = np.asarray(overlay(picture, trace), int)
    inside = drawn[20:220, 20:220]
    assert inside.max() - inside.min() == 0
    assert len(np.unique(drawn)) <= 6


def test_a_smaller_picture_has_the_pixels_that_the_encoder_got():
    noise = Image.effect_noise((64, 64), 100).convert("RGB")
    trace = trace_of(raster(1, 4, 4), [0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2, drawn_as="smaller")
    drawn = np.asarray(overlay(noise, replace(trace, cell=8)), int)[..., 0]
    # Two cells of eight pixels fill 480 pixels: each is 30 wide.
    inside = drawn[2:238, 2:238]
    steps = np.flatnonzero((np.diff(inside, axis=1) != 0).any(0)) + 3
    assert set(steps.tolist()) == {30, 60, 90, 120, 150, 180, 210}


def test_a_low_pass_picture_keeps_its_mean_and_loses_what_is_fine():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    trace = trace_of(raster(1, 4, 4), [0, 0, 1, 1] * 2 + [2, 2, 3, 3] * 2, drawn_as="low-pass")
    drawn = cells(overlay(Image.fromarray(stripes), trace), 4, 4)
    assert np.allclose(drawn, 127.5, atol=12)
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255
    left, right = cells(overlay(Image.fromarray(half), trace), 1, 2)[0]
    assert right.min() - left.max() > 150


def test_patches_that_skip_the_last_layer_are_not_dropped(picture):
    trace = layered(raster(1, 2, 2), (0, 0, [0, 1, 2, 3]), (1, 1, [0, -1, -1, -1]))
    whole = trace_of(raster(1, 2, 2), [0, 1, 2, 3], by_layer=trace.by_layer)
    dropped, skipped = (
        cells(overlay(picture, t, span=t.by_layer[1]), 2, 2)[1, 1] for t in (trace, whole)
    )
    assert skipped.max() > 2 * dropped.max()


def side_colours(image: Image.Image, row: int, column: int, rows: int, columns: int) -> set[tuple]:
    """Colours along the outermost pixels of a cell, without its corners."""
    pixels = np.asarray(image)
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    cell = pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
    sides = (cell[0, 9:-9], cell[-1, 9:-9], cell[9:-9, 0], cell[9:-9, -1])
    return {tuple(map(int, colour)) for side in sides for colour in side}


def test_every_part_of_a_merged_token_has_a_closed_border_of_its_colour(picture):
    # Two tokens, each in two cells that do not touch, all at sides of the picture.
    drawn = overlay(picture, trace_of(raster(1, 2, 2), [0, 1, 1, 0]))
    first, other = side_colours(drawn, 0, 0, 2, 2), side_colours(drawn, 0, 1, 2, 2)
    assert len(first) == len(other) == 1 and first != other
    assert side_colours(drawn, 1, 1, 2, 2) == first and side_colours(drawn, 1, 0, 2, 2) == other


@pytest.mark.parametrize("level", [0, 255])
def test_a_kept_patch_among_merged_ones_has_a_dark_and_a_light_line(level):
    picture = Image.new("RGB", (96, 96), (level,) * 3)
    drawn = np.asarray(overlay(picture, trace_of(raster(1, 3, 3), [0] * 4 + [1] + [0] * 4)), int)
    middle = drawn[drawn.shape[0] // 2]
    cell = middle[drawn.shape[1] // 3 :][:8, 0]
    assert cell.max() - cell.min() > 150
