import pytest
import torch

from foveate.errors import UnsupportedCall
from foveate.families.base import raster
from foveate.families.specials import newline_behind
from foveate.families.tiles import stitched
from foveate.ops.rows import Plane, planes, row_of_tokens
from foveate.ops.tiles import is_stitched, tiles
from foveate.tokens import Grid

SHAPES = [
    (4, (2, 2), (0, 0, 8, 8)),
    (4, (2, 3), (1, 0, 6, 12)),
    (4, (3, 1), (0, 1, 12, 2)),
    (4, (1, 2), (1, 0, 2, 8)),
    (4, (2, 2), (0, 3, 8, 2)),
    (3, (1, 1), (0, 1, 3, 1)),
]


def tokens_of(layout):
    return layout.tokens(torch.arange(layout.n).float().view(1, -1, 1))


@pytest.mark.parametrize("side,crops,window", SHAPES)
def test_stitched_pictures_know_their_crops(side, crops, window):
    layout = stitched(side, crops, window)
    lie = tiles(tokens_of(layout))
    assert (lie.side, lie.crops, lie.extent) == (side, crops, window[2:])
    assert torch.equal(lie.group, layout.view.masked_fill(layout.special, -1))
    assert lie.sizes.tolist() == torch.bincount(lie.group + 1)[1:].tolist()
    for view in range(1 + crops[0] * crops[1]):
        assert lie.local[lie.group == view].tolist() == list(range(lie.sizes[view]))
    scores = torch.rand(2, layout.n)
    assert torch.equal(lie.overview(scores).flatten(1), scores[:, : side**2])


def test_cells_that_are_gone_count_as_the_mean():
    layout = stitched(4, (2, 2), (0, 0, 8, 8))
    tokens = tokens_of(layout).take(torch.tensor([[1, 2, 40, 41, 60]]))
    canvas = tiles(tokens).overview(torch.tensor([[4.0, 8.0, 0, 0, 0]]))
    assert canvas.flatten().tolist() == [6, 4, 8] + [6] * 13


def test_single_views_and_frames_have_no_tiles():
    for layout in (raster(1, 4, 4), raster(4, 3, 4), newline_behind(raster(1, 5, 4), 4)):
        assert not is_stitched(layout.grid) and tiles(tokens_of(layout)) is None


@pytest.mark.parametrize("side,crops,window", SHAPES)
def test_planes_of_stitched_pictures(side, crops, window):
    layout = stitched(side, crops, window)
    _, _, height, width = window
    assert planes(layout.grid) == [Plane(side, side, False), Plane(height, width, True)]
    row, plane = row_of_tokens(tokens_of(layout), planes(layout.grid))
    assert plane.tolist() == [0] * side + [1] * height
    assert row.tolist() == [
        *[i // side for i in range(side**2)],
        *[side + i for i in range(height) for _ in range(width + 1)],
    ]


def test_planes_of_frames_and_newlines():
    assert planes(raster(3, 2, 5).grid) == [Plane(2, 5, False)] * 3
    assert planes(newline_behind(raster(1, 5, 4), 4).grid) == [Plane(5, 4, True)]
    ended = newline_behind(raster(2, 2, 3))
    assert planes(ended.grid) == [Plane(2, 3, False)] * 2
    assert row_of_tokens(tokens_of(ended), planes(ended.grid))[0].tolist() == [
        *[i // 3 for i in range(12)],
        -1,
    ]
    with pytest.raises(UnsupportedCall, match="strategy='rank'"):
        planes(Grid(1, 1, 9, (3, 4)))
