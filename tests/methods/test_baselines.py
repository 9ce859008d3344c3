import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import BudgetError, InvalidParameter
from foveate.families.base import raster
from foveate.methods.frames.downsample import Downsample
from foveate.methods.tokens.grid_pool import GridPool
from foveate.methods.tokens.random import Random
from foveate.methods.tokens.uniform import Uniform
from foveate.signals import Signals
from foveate.tokens import Grid

NONE = Signals({})


def reduced(method, tokens):
    return method.reduce(tokens, NONE, method.count(tokens.grid))


def test_random_draws_every_item_anew_from_its_seed_alone(make_tokens, layouts):
    tokens = make_tokens(layouts["picture"], batch=4)
    state = torch.random.get_rng_state()
    first = reduced(Random(keep=9, seed=3), tokens).index
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(7)
    assert torch.equal(reduced(Random(keep=9, seed=3), tokens).index, first)
    assert not torch.equal(reduced(Random(keep=9, seed=4), tokens).index, first)
    assert len({tuple(row) for row in first.tolist()}) == 4
    assert (first.diff(dim=1) > 0).all()


def test_random_reaches_every_patch_alike(make_tokens, layouts):
    tokens = make_tokens(layouts["picture"], batch=400)
    hits = reduced(Random(keep=9), tokens).index.flatten().bincount(minlength=36)
    # 100 expected of each; 5 standard deviations are 43.
    assert ((hits > 55) & (hits < 145)).all()


def test_uniform_takes_the_middles_of_equal_runs():
    tokens = raster(1, 1, 12).tokens(torch.zeros(1, 12, 2))
    assert reduced(Uniform(keep=3), tokens).index.tolist() == [[2, 6, 10]]
    assert reduced(Uniform(keep=5), tokens).index.tolist() == [[1, 3, 6, 8, 10]]


def test_uniform_passes_over_newlines(make_tokens, layouts):
    out = reduced(Uniform(keep=10), make_tokens(layouts["newlines"]))
    assert not out.special.any()
    assert (out.index.diff(dim=1) > 0).all()


def test_grid_pool_averages_neighbours(make_tokens, layouts):
    tokens = make_tokens(layouts["picture"])
    out = reduced(GridPool(keep=9), tokens)
    expected = tokens.features.view(2, 3, 2, 3, 2, -1).mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(out.features, expected)
    assert (out.size == 4).all()
    assert out.position[0, :, 1:].tolist() == [[r, c] for r in (0, 2, 4) for c in (0, 2, 4)]


def test_grid_pool_pools_every_view_by_itself(layout, make_tokens):
    tokens = make_tokens(layout)
    out = reduced(GridPool(keep=0.4), tokens)
    view = tokens.view[0]
    for new in range(out.n):
        assert len(view[out.assign[0] == new].unique()) == 1
    assert torch.equal(out.assign[0] >= 0, view >= 0)
    assert (out.index.diff(dim=1) > 0).all(), "reading order"
    kept = tokens.patch[..., None] * tokens.features
    torch.testing.assert_close((out.features * out.size[..., None]).sum(1), kept.sum(1))


grids = st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24))


@settings(deadline=None, max_examples=200)
@given(size=grids, keep=st.integers(1, 600))
def test_downsample_stays_within_its_budget_and_shape(size, keep):
    t, h, w = size
    grid = Grid(t, h, w, (h * w,) * t)
    method = Downsample(keep=min(keep, grid.n))
    if method.keep < t:
        with pytest.raises(BudgetError, match="keep="):
            method.shape(grid)
        return
    rows, columns = method.shape(grid)
    assert 1 <= rows <= h and 1 <= columns <= w
    assert method.count(grid) == t * rows * columns <= method.keep

    def bent(shape):
        ratio = shape[0] * w / (shape[1] * h)
        return max(ratio, 1 / ratio)

    area = method.keep // t
    shapes = [(r, c) for r in range(1, h + 1) for c in range(1, w + 1) if r * c <= area]
    straight = [s for s in shapes if bent(s) <= 1.25]
    if straight:
        assert rows * columns == max(r * c for r, c in straight)
        assert bent((rows, columns)) <= 1.25
    else:
        assert bent((rows, columns)) == min(map(bent, shapes))


def test_downsample_halves_both_sides_for_a_quarter():
    assert Downsample(keep=0.25).shape(Grid(1, 24, 24, (576,))) == (12, 12)
    assert Downsample(keep=1.0).shape(Grid(1, 24, 24, (576,))) == (24, 24)
    tiled = Grid(2, 48, 48, (576,) * 5, 48)
    assert Downsample(keep=0.25).shape(tiled) == (24, 24)


def test_downsample_refuses_a_stretch_below_one():
    with pytest.raises(InvalidParameter, match="stretch=0.5"):
        Downsample(stretch=0.5)
