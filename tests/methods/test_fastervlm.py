import pytest
import torch

from foveate.errors import BudgetError
from foveate.methods.tokens.fastervlm import FasterVLM
from foveate.signals import Signals, VisionAttention


def kept(method, tokens, attention):
    signals = Signals({VisionAttention(rows=method.score): attention})
    return method.reduce(tokens, signals, method.count(tokens.grid)).index


@pytest.fixture
def attention():
    return torch.rand(2, 4, 36, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokens(make_tokens, layouts):
    return make_tokens(layouts["picture"])


def test_scale_and_order_of_heads_do_not_matter(tokens, attention):
    expected = kept(FasterVLM(keep=9), tokens, attention)
    assert torch.equal(kept(FasterVLM(keep=9), tokens, attention * 3), expected)
    assert torch.equal(kept(FasterVLM(keep=9), tokens, attention.flip(1)), expected)


def test_a_place_is_worth_nothing(tokens, attention):
    order = torch.randperm(36, generator=torch.Generator().manual_seed(1))
    expected = kept(FasterVLM(keep=9), tokens, attention)
    moved = kept(FasterVLM(keep=9), tokens, attention[..., order])
    assert torch.equal(order[moved].sort(1).values, expected)


def test_every_crop_keeps_its_own_best(make_tokens, layouts):
    layout = layouts["tiled"]
    scores = torch.rand(1, 1, layout.n, generator=torch.Generator().manual_seed(2))
    tokens = make_tokens(layout, batch=1)
    index = kept(FasterVLM(keep=15), tokens, scores)[0]
    assert (index.diff() > 0).all(), "reading order of the stitched picture"
    for view in range(5):
        own = (layout.view == view).nonzero()[:, 0]
        best = own[scores[0, 0, own].argsort(descending=True)[:3]].sort().values
        assert torch.equal(index[layout.view[index] == view], best)


def test_newlines_are_no_patches(layouts):
    grid = layouts["newlines"].grid
    assert (grid.patches, grid.n) == (20, 25)
    assert FasterVLM(keep=0.5).count(grid) == 10
    assert FasterVLM(keep=1.0).count(grid) == 25
    assert FasterVLM(keep=20).count(grid) == 20
    assert FasterVLM(keep=25).count(grid) == 25
    with pytest.raises(BudgetError, match="at most 20"):
        FasterVLM(keep=21).count(grid)


def test_the_paper_presets():
    from foveate.tokens import Grid

    for share, count in ((0.75, 432), (0.5, 288), (0.25, 144), (0.1, 58), (0.05, 29)):
        assert FasterVLM(keep=share).count(Grid(1, 24, 24, (576,))) == count


def test_a_crop_without_a_token_is_refused(layouts):
    with pytest.raises(BudgetError, match="keep=5"):
        FasterVLM(keep=4).count(layouts["tiled"].grid)
