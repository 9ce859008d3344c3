import pytest
import torch

from foveate.errors import InvalidParameter
from foveate.methods.tokens.hired import HiRED
from foveate.ops.tiles import tiles
from foveate.signals import Signals


@pytest.fixture
def tokens(make_tokens, layouts):
    return make_tokens(layouts["tiled"])


def per_view(method, tokens, signals):
    index = method.reduce(tokens, signals, method.count(tokens.grid)).index
    assert (index.diff(dim=1) > 0).all(), "overview, then the stitched picture"
    return torch.stack([row.bincount(minlength=5) for row in tokens.view.gather(1, index)]), index


def marked(method, tokens, cells, seed=0):
    """Signals whose first layer looks at `cells` of the overview only."""
    g = torch.Generator().manual_seed(seed)
    first = torch.rand(2, 3, tokens.n, generator=g) * 1e-3
    first[:, :, cells] += 1
    last = torch.rand(2, 3, tokens.n, generator=g)
    return Signals(dict(zip(method.needs, (first, last), strict=True)))


def test_the_overview_gets_its_share_and_crops_their_content(tokens):
    method = HiRED(keep=24)
    counts, _ = per_view(method, tokens, marked(method, tokens, [0, 1, 2, 4, 5, 6, 8, 12]))
    assert counts.tolist() == [[12, 5, 5, 1, 1]] * 2, "marks by rows of 4: 3, 3, 1, 1 of 8"
    method = HiRED(keep=24, regions="grid")
    counts, _ = per_view(method, tokens, marked(method, tokens, [0, 1, 2, 4, 5, 6, 8, 12]))
    assert counts.tolist() == [[12, 6, 3, 3, 0]] * 2, "quadrants: 4, 2, 2, 0 of 8"


def test_what_a_full_crop_can_not_take_goes_to_the_others(tokens):
    method = HiRED(keep=60, alpha=0.2)
    counts, _ = per_view(method, tokens, marked(method, tokens, list(range(8))))
    assert counts.sum(1).tolist() == [60, 60] and counts[:, 0].tolist() == [12, 12]
    assert counts.max() == 16


def test_budgets_and_choice_read_different_layers(tokens):
    method = HiRED(keep=20)
    a, b = (marked(method, tokens, [0, 1, 5, 15], seed) for seed in (0, 1))
    counts, index = per_view(method, tokens, a)
    first, last = method.needs
    mixed = per_view(method, tokens, Signals({first: a[first], last: b[last]}))
    assert torch.equal(counts, mixed[0]) and not torch.equal(index, mixed[1])
    crops = a[first].clone()
    crops[:, :, 16:] = 7
    assert torch.equal(per_view(method, tokens, Signals({first: crops, last: a[last]}))[1], index)


def test_mass_counts_attention_itself(tokens):
    method = HiRED(keep=20, content="mass", regions="grid")
    first = torch.zeros(1, tokens.n)
    first[:, [0, 2, 8, 10]] = torch.tensor([1.0, 2, 3, 4])
    shares = method.crop_shares(first, tiles(tokens), 10)
    torch.testing.assert_close(shares, torch.tensor([[1.0, 2, 3, 4]]))


def test_without_marks_crops_share_by_size(tokens):
    method = HiRED(keep=40, alpha=1.0)
    counts, _ = per_view(method, tokens, marked(method, tokens, [0]))
    assert counts.tolist() == [[16, 6, 6, 6, 6]] * 2


def test_frames_share_evenly(make_tokens, make_signals, layouts):
    tokens = make_tokens(layouts["video"])
    method = HiRED(keep=20)
    index = method.reduce(tokens, make_signals(method, tokens), 20).index
    assert [row.bincount().tolist() for row in tokens.view.gather(1, index)] == [[5] * 4] * 2


def test_words_and_shares_out_of_range_are_refused():
    for wrong in ({"alpha": -0.1}, {"mark_ratio": 2.0}, {"regions": "2d"}, {"content": "sum"}):
        with pytest.raises(InvalidParameter, match=next(iter(wrong))):
            HiRED(**wrong)


@pytest.mark.parametrize(
    ("alpha", "keep", "expected"),
    [(0.5, 27, [13, 7, 7, 0, 0]), (0.25, 27, [6, 7, 7, 7, 0]), (0.75, 23, [16, 7, 0, 0, 0])],
)
def test_alpha_is_the_overviews_share_and_one_minus_alpha_is_marked(tokens, alpha, keep, expected):
    """int(13.5) and int(6.75) tokens; 8, 12 and 4 of 16 patches are marked, in runs of four."""
    method = HiRED(keep=keep, alpha=alpha)
    first = torch.zeros(1, 3, tokens.n)
    first[:, :, :16] = torch.arange(16, 0, -1.0)
    last = torch.rand(1, 3, tokens.n, generator=torch.Generator().manual_seed(1))
    one = tokens.row(0)
    index = method.reduce(
        one, Signals(dict(zip(method.needs, (first, last), strict=True))), keep
    ).index
    assert one.view[0][index[0]].bincount(minlength=5).tolist() == expected
