"""What a drawing says about every patch: kept, merged or dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.errors import InvalidParameter
from foveate.families.base import raster
from foveate.report import Trace
from foveate.tokens import Layout
from foveate.view import overlay, planes


def trace_of(layout: Layout, assign: list[int]) -> Trace:
    """The trace of an item whose slots are held as `assign` says."""
    held = torch.tensor(assign)
    index = torch.tensor([assign.index(k) for k in range(int(held.max()) + 1)])
    return Trace(layout, index, held, torch.bincount(held[held >= 0]).float())


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


def test_merged_patches_share_a_tint_and_groups_differ(picture):
    drawn = cells(overlay(picture, trace_of(raster(1, 2, 3), [0, 0, 1, 2, 1, 1])), 2, 3)
    assert np.allclose(drawn[0, 0], drawn[0, 1])
    assert np.allclose(drawn[0, 2], drawn[1, 1]) and np.allclose(drawn[0, 2], drawn[1, 2])
    assert np.abs(drawn[0, 0] - drawn[0, 2]).max() > 15
    assert np.allclose(drawn[1, 0], (200, 160, 120))


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
    assert overlay(frames, trace_of(raster(2, 1, 2), [0, 1, 0, 2])).width > 480


def test_wide_pictures_and_fine_grids():
    for size, grid in (((400, 2), (1, 200)), ((2, 400), (200, 1)), ((1, 1), (3, 3))):
        layout = raster(1, *grid)
        drawn = overlay(Image.new("RGB", size), trace_of(layout, list(range(layout.n))))
        assert 480 <= max(drawn.size) <= 1200 and min(drawn.size) >= 1


def test_nothing_to_draw_on(picture):
    trace = trace_of(raster(1, 2, 2), [0, 1, 2, 3])
    with pytest.raises(InvalidParameter, match="no picture"):
        overlay([], trace)
