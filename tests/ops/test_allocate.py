import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import BudgetError
from foveate.ops.allocate import (
    per_view_top_k,
    share_evenly,
    share_in_proportion,
    view_batches,
)

sizes = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any)


@settings(deadline=None)
@given(sizes=sizes, data=st.data())
def test_even_shares_are_exact_and_fit(sizes, data):
    held = [s for s in sizes if s]
    total = data.draw(st.integers(len(held), sum(sizes)))
    shares = share_evenly(total, sizes)
    assert sum(shares) == total
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    free = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert not free or max(shares) - min(free) <= 1


@settings(deadline=None)
@given(sizes=sizes, data=st.data())
def test_proportional_shares_are_exact_and_fit(sizes, data):
    held = [s for s in sizes if s]
    total = data.draw(st.integers(len(held), sum(sizes)))
    shares = share_in_proportion(total, sizes)
    assert sum(shares) == total
    assert all((0 < s <= n) if n else s == 0 for s, n in zip(shares, sizes, strict=True))
    for a, small in zip(shares, sizes, strict=True):
        for b, large in zip(shares, sizes, strict=True):
            assert small > large or a <= b + 1


def test_equal_views_share_equally():
    assert share_evenly(7, [5, 5, 5]) == [3, 2, 2]
    assert share_in_proportion(7, [5, 5, 5]) == [3, 2, 2]
    assert share_evenly(10, [2, 9, 9]) == [2, 4, 4]
    assert share_in_proportion(10, [10, 20, 10]) == [3, 5, 2]


@pytest.mark.parametrize("share", [share_evenly, share_in_proportion])
def test_too_little_for_all_views_is_refused(share):
    with pytest.raises(BudgetError, match="keep=3"):
        share(2, [4, 4, 4])


def test_batches_hold_views_of_equal_size_and_share():
    members = [torch.arange(3), torch.arange(3, 6), torch.arange(6, 6), torch.arange(6, 10)]
    found = list(view_batches(members, [2, 2, 0, 2]))
    assert [(numbers, slots.tolist(), share) for numbers, slots, share in found] == [
        ([0, 1], [[0, 1, 2], [3, 4, 5]], 2),
        ([3], [[6, 7, 8, 9]], 2),
    ]


@settings(deadline=None, max_examples=40)
@given(sizes=sizes, seed=st.integers(0, 10**6), data=st.data())
def test_every_view_keeps_its_best(sizes, seed, data):
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    members = list(torch.randperm(n, generator=generator).split(sizes))
    members = [m.sort().values for m in members]
    scores = torch.rand(2, n, generator=generator)
    keep = data.draw(st.integers(sum(map(bool, sizes)), n))
    found = per_view_top_k(scores, members, keep)
    for b in range(2):
        expected = []
        for slots, share in zip(members, share_evenly(keep, sizes), strict=True):
            ranked = sorted(slots.tolist(), key=lambda i: -scores[b, i].item())
            expected += ranked[:share]
        assert found[b].tolist() == sorted(expected)
