import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import InvalidParameter
from foveate.ops import farthest
from foveate.ops.farthest import farthest_point, gram


def distances(x, metric):
    if metric == "cosine":
        x = x / x.norm(dim=-1, keepdim=True)
        return 1 - x @ x.mT
    return torch.cdist(x, x)


def slow(x, k, metric="cosine"):
    """Greedy max-min by its definition, for one item in float64."""
    d = distances(x.double(), metric)
    d = (d + d.T) / 2
    n = len(x)
    nearest = [min(d[i, j].item() for j in range(n) if j != i) for i in range(n)]
    picks = [max(range(n), key=lambda i: nearest[i])]
    while len(picks) < k:
        left = [i for i in range(n) if i not in picks]
        picks.append(max(left, key=lambda i: min(d[i, j].item() for j in picks)))
    return torch.tensor(picks)


def points(b, n, d, seed):
    return torch.randn(b, n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@settings(max_examples=25, deadline=None)
@given(b=st.integers(1, 3), n=st.integers(2, 24), seed=st.integers(0, 10**6), data=st.data())
def test_equals_the_definition(metric, b, n, seed, data):
    x = points(b, n, 5, seed)
    k = data.draw(st.integers(1, n))
    found = farthest_point(x, k, metric=metric)
    assert found.shape == (b, k)
    for item, picks in zip(x, found, strict=True):
        assert picks.tolist() == slow(item, k, metric).tolist()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_rows_made_again_give_the_same(monkeypatch, metric):
    x = points(2, 60, 8, 0)
    mask = torch.rand(2, 60, generator=torch.Generator().manual_seed(1)) < 0.8
    whole = farthest_point(x, 20, metric=metric)
    masked = farthest_point(x, 20, metric=metric, mask=mask)
    monkeypatch.setattr(farthest, "PAIRS", 59 * 59)
    monkeypatch.setattr(farthest, "BLOCK", 60 * 7)
    assert torch.equal(farthest_point(x, 20, metric=metric), whole)
    assert torch.equal(farthest_point(x, 20, metric=metric, mask=mask), masked)


def test_items_in_small_groups_give_the_same(monkeypatch):
    x = points(5, 16, 4, 2)
    whole = farthest_point(x, 7)
    monkeypatch.setattr(farthest, "BLOCK", 2 * 16 * 16)
    assert torch.equal(farthest_point(x, 7), whole)


def test_all_points_are_picked_once():
    assert farthest_point(points(1, 40, 6, 3), 40)[0].sort().values.tolist() == list(range(40))


def test_the_start_is_the_first_pick():
    x = points(2, 12, 4, 4)
    start = torch.tensor([7, 2])
    assert torch.equal(farthest_point(x, 5, start=start)[:, 0], start)


def test_masked_points_come_last():
    x = points(3, 20, 4, 5)
    mask = torch.arange(20) % 3 > 0
    picks = farthest_point(x, 20, mask=mask.expand(3, 20))
    inside = int(mask.sum())
    assert mask[picks[:, :inside]].all() and not mask[picks[:, inside:]].any()
    alone = farthest_point(x[:, mask], inside)
    assert torch.equal(mask.nonzero()[:, 0][alone], picks[:, :inside])


def test_copies_come_last():
    x = points(1, 10, 4, 6)
    picks = farthest_point(torch.cat([x, x], 1), 20)[0]
    assert sorted((picks[:10] % 10).tolist()) == list(range(10))
    assert sorted(picks.tolist()) == list(range(20))


def test_equal_and_zero_points_are_picked_by_index():
    assert farthest_point(torch.ones(1, 6, 3), 6)[0].tolist() == list(range(6))
    picks = farthest_point(torch.zeros(1, 4, 3), 4)[0]
    assert picks.sort().values.tolist() == list(range(4))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_cosine_ignores_length_and_rotation(seed):
    x = points(1, 24, 6, seed).double().float()
    picks = farthest_point(x, 10)
    scale = torch.rand(1, 24, 1, generator=torch.Generator().manual_seed(seed)) + 0.5
    turn = torch.linalg.qr(points(1, 6, 6, seed + 1)[0]).Q
    assert torch.equal(farthest_point(x * scale, 10), picks)
    assert torch.equal(farthest_point(x @ turn, 10), picks)


def test_permuting_points_permutes_picks():
    x = points(1, 30, 6, 7)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(order[farthest_point(x[:, order], 12)], farthest_point(x, 12))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 4))
def test_two_approximation_of_the_best_spread(seed, k):
    x = points(1, 9, 3, seed)
    d = distances(x[0].double(), "euclidean")

    def spread(chosen):
        return min(d[i, j].item() for i, j in itertools.combinations(chosen, 2))

    best = max(spread(c) for c in itertools.combinations(range(9), k))
    start = torch.tensor([0])
    for picks in (
        farthest_point(x, k, metric="euclidean"),
        farthest_point(x, k, metric="euclidean", start=start),
    ):
        assert spread(picks[0].tolist()) >= best / 2 - 1e-6


def test_half_precision_and_gradients_are_no_obstacle():
    x = points(1, 40, 8, 8).requires_grad_()
    picks = farthest_point(x, 10)
    half = farthest_point(x.bfloat16(), 10)
    assert torch.equal(half, farthest_point(x.bfloat16().float(), 10))
    assert not picks.requires_grad


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_gram_is_the_full_product(n):
    x = points(2, n, 5, n)
    products = gram(x)
    torch.testing.assert_close(products, x @ x.mT)
    assert torch.equal(products, products.mT)


def test_an_unknown_metric_is_refused():
    with pytest.raises(InvalidParameter, match="manhattan"):
        farthest_point(points(1, 4, 2, 0), 2, metric="manhattan")
