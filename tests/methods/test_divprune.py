import pytest
import torch

from foveate.errors import BudgetError
from foveate.methods.tokens.divprune import DivPrune
from foveate.ops.farthest import farthest_point
from foveate.signals import Signals
from foveate.tokens import Grid


def kept(method, tokens):
    return method.reduce(tokens, Signals({}), method.count(tokens.grid)).index


def test_its_share_is_rounded_half_to_even():
    assert DivPrune().count(Grid(1, 24, 24, (576,))) == 56
    assert DivPrune(keep=0.5).count(Grid(1, 1, 5, (5,))) == 2
    assert DivPrune(keep=0.5).count(Grid(1, 1, 7, (7,))) == 4
    assert DivPrune().count(Grid(2, 48, 48, (576,) * 5, 48)) == 287, "newlines are in the pool"


def test_kept_tokens_are_the_farthest_in_reading_order(layout, make_tokens):
    tokens = make_tokens(layout)
    index = kept(DivPrune(keep=8), tokens)
    assert torch.equal(index, farthest_point(tokens.features, 8).sort(1).values)


def test_protected_newlines_stay_within_the_budget(make_tokens, layouts):
    layout = layouts["newlines"]
    index = kept(DivPrune(keep=9, protect=True), make_tokens(layout))
    assert layout.special[index].sum(1).tolist() == [5, 5]
    assert (index.diff(dim=1) > 0).all()
    patches = make_tokens(layout).features[:, ~layout.special]
    own = (~layout.special).nonzero()[:, 0]
    for b in range(2):
        chosen = index[b][~layout.special[index[b]]]
        assert chosen.tolist() == sorted(own[farthest_point(patches, 4)[b]].tolist())
    with pytest.raises(BudgetError, match="keep=5"):
        DivPrune(keep=5, protect=True).count(layout.grid)


def test_every_crop_can_be_a_pool_of_its_own(make_tokens, layouts):
    layout = layouts["tiled"]
    tokens = make_tokens(layout, batch=1)
    index = kept(DivPrune(keep=15, per_crop=True), tokens)[0]
    for view in range(5):
        own = (layout.view == view).nonzero()[:, 0]
        chosen = own[farthest_point(tokens.features[:, own], 3)[0]]
        assert index[layout.view[index] == view].tolist() == sorted(chosen.tolist())


def test_crops_and_newlines_together(make_tokens, layouts):
    layout = layouts["tiled"]
    index = kept(DivPrune(keep=18, per_crop=True, protect=True), make_tokens(layout))
    assert layout.special[index].sum(1).tolist() == [8, 8]
    views = layout.view[index[0]]
    assert views[views >= 0].bincount().tolist() == [2] * 5


def test_copies_are_kept_last(make_tokens, layouts):
    tokens = make_tokens(layouts["picture"], batch=1)
    doubled = layouts["picture"].tokens(tokens.features[:, :18].repeat(1, 2, 1))
    index = kept(DivPrune(keep=18), doubled)[0]
    assert len((index % 18).unique()) == 18
