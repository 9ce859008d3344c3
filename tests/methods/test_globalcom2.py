import pytest
import torch

from foveate.errors import InvalidParameter
from foveate.methods.tokens.globalcom2 import GlobalCom2, crop_scales
from foveate.signals import Signals, VisionAttention


@pytest.fixture
def tokens(make_tokens, layouts):
    return make_tokens(layouts["tiled"])


def reduced(method, tokens, score):
    signals = Signals({method.needs[0]: score[:, None]})
    return method.reduce(tokens, signals, method.count(tokens.grid))


@pytest.fixture
def score(tokens):
    return torch.randn(2, tokens.n, generator=torch.Generator().manual_seed(0))


def test_an_even_overview_gives_even_shares():
    scales = crop_scales(torch.ones(1, 6, 6), (2, 3), 0.25, 10.0)
    torch.testing.assert_close(scales[0], torch.full((6,), 0.25).double())


def test_shares_rise_with_the_block_and_keep_the_mean():
    base = torch.zeros(1, 4, 4)
    base[0, :2, 2:], base[0, 2:, :2] = 2.0, 4.0
    scales = crop_scales(base, (2, 2), 0.25, 10.0)[0]
    assert scales[0] == scales[3] < scales[1] < scales[2]
    torch.testing.assert_close(scales.sum(), torch.tensor(1.0).double())


def test_patches_are_counted_and_newlines_come_on_top(tokens, score):
    method = GlobalCom2(keep=0.25)
    assert method.count(tokens.grid) == 20 + 8
    out = reduced(method, tokens, score)
    assert out.special.sum(1).tolist() == [8, 8]
    assert reduced(GlobalCom2(keep=12), tokens, score).special.sum(1).tolist() == [8, 8]
    assert not reduced(GlobalCom2(keep=8), tokens, score).special.any()


def test_the_overview_is_read_best_first(tokens, score):
    out = reduced(GlobalCom2(keep=0.25), tokens, score)
    best = score[:, :16].argsort(descending=True)[:, :4]
    assert torch.equal(out.index[:, :4], best)
    assert (out.index[:, 4:].diff(dim=1) > 0).all() and (out.index[:, 4:] >= 16).all()
    sorted_ = reduced(GlobalCom2(keep=0.25, thumbnail_order="raster"), tokens, score)
    assert torch.equal(sorted_.index, out.index.sort(1).values)


def test_a_crop_does_not_set_its_own_budget(tokens, score):
    def counts(score):
        out = reduced(GlobalCom2(keep=0.5), tokens, score)
        return [row[row >= 0].bincount(minlength=5).tolist() for row in out.view]

    other = score.clone()
    other[:, 16:] = torch.randn(2, tokens.n - 16)
    assert counts(other) == counts(score)
    guided = score.clone()
    guided[:, [0, 1, 4, 5]] += 20
    assert all(a[1] > b[1] for a, b in zip(counts(guided), counts(score), strict=True))


def test_official_placement_fills_a_crop_from_its_first_cell(make_tokens, layouts):
    tokens = make_tokens(layouts["column"])
    score = torch.randn(2, tokens.n, generator=torch.Generator().manual_seed(1))
    true = reduced(GlobalCom2(keep=0.5), tokens, score)
    official = reduced(GlobalCom2(keep=0.5, placement="official"), tokens, score)
    assert torch.equal(true.index.sort(1).values, official.index.sort(1).values)
    assert not torch.equal(true.index, official.index)
    full = make_tokens(layouts["tiled"])
    same = [
        reduced(GlobalCom2(keep=0.5, placement=p), full, torch.arange(88.0).sin().expand(2, -1))
        for p in ("true", "official")
    ]
    assert torch.equal(same[0].index, same[1].index), "without padding they agree"


def test_frames_share_evenly_in_reading_order(make_tokens, layouts):
    tokens = make_tokens(layouts["video"])
    out = reduced(GlobalCom2(keep=20), tokens, torch.rand(2, tokens.n))
    assert [row.bincount().tolist() for row in out.view] == [[5] * 4] * 2
    assert (out.index.diff(dim=1) > 0).all()


def test_words_out_of_range_are_refused():
    for wrong in ({"temperature": 0}, {"placement": "here"}, {"thumbnail_order": "size"}):
        with pytest.raises(InvalidParameter, match=next(iter(wrong))):
            GlobalCom2(**wrong)


@pytest.mark.parametrize(("keep", "overview"), [(0.3, 4), (0.36, 5), (0.24, 3)])
def test_the_overview_keeps_int_of_n_r_by_the_last_layers_logits(tokens, score, keep, overview):
    """Of 16 patches 4.8, 5.76 and 3.84: what is over goes to the crops."""
    signals = Signals({VisionAttention(layer=-1, logits=True): score[:, None]})
    method = GlobalCom2(keep=keep)
    out = method.reduce(tokens, signals, method.count(tokens.grid))
    best = score[:, :16].argsort(descending=True)[:, :overview]
    assert torch.equal(out.index[:, :overview], best)
    assert (out.index[:, overview:] >= 16).all()
