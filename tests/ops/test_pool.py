import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.ops.pool import cell_rows, grid_cells


@settings(deadline=None, max_examples=150)
@given(h=st.integers(1, 16), w=st.integers(1, 16), data=st.data())
def test_cells_are_exact_and_none_is_empty(h, w, data):
    cells = data.draw(st.integers(1, h * w))
    cell = grid_cells(h, w, cells).view(h, w)
    assert cell.flatten().bincount().tolist().count(0) == 0
    assert int(cell.max()) + 1 == cells
    for i in range(cells):
        rows, columns = (cell == i).nonzero(as_tuple=True)
        box = cell[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (box == i).all(), "a cell is a rectangle"


def test_a_quarter_of_a_square_is_two_by_two():
    cell = grid_cells(24, 24, 144).view(24, 24)
    assert torch.equal(cell[::2, ::2], torch.arange(144).view(12, 12))
    assert torch.equal(cell.flatten().bincount(), torch.full((144,), 4))


def test_wide_pictures_have_more_columns_than_rows():
    assert cell_rows(6, 24, 16) == [8, 8]
    assert cell_rows(24, 6, 16) == [2] * 8


def test_all_cells_is_the_identity():
    assert torch.equal(grid_cells(3, 5, 15), torch.arange(15))
