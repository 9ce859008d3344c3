import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.ops.grouped import apportion, chosen, means, sums, top_per_group


@settings(deadline=None)
@given(n=st.integers(1, 30), groups=st.integers(1, 5), seed=st.integers(0, 99))
def test_every_group_keeps_its_best(n, groups, seed):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (3, n), generator=g).float()
    group = torch.randint(-1, groups, (3, n), generator=g)
    k = torch.randint(0, 5, (3, groups), generator=g)
    mask = top_per_group(scores, group, k)
    for b in range(3):
        for number in range(groups):
            own = (group[b] == number).nonzero()[:, 0].tolist()
            best = sorted(own, key=lambda i: (-scores[b, i].item(), i))[: int(k[b, number])]
            assert [i for i in own if mask[b, i]] == sorted(best)
    assert not mask[group == -1].any()
    shared = top_per_group(scores, group[0], k[0])
    assert torch.equal(shared[0], mask[0])
    for row, held in zip(mask, mask.sum(1).tolist(), strict=True):
        assert torch.equal(chosen(row[None], held)[0], row.nonzero()[:, 0])


def test_sums_and_means_leave_out_who_belongs_nowhere():
    values, group = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([0, 0, -1, 2])
    assert sums(values, group, 3).tolist() == [[3, 0, 4]]
    assert means(values, group, 3).tolist() == [[1.5, 0, 4]]


@settings(deadline=None)
@given(data=st.data(), groups=st.integers(1, 7))
def test_apportioned_numbers_are_exact_and_fit(data, groups):
    caps = data.draw(st.lists(st.integers(0, 20), min_size=groups, max_size=groups))
    total = data.draw(st.integers(0, sum(caps)))
    weight = st.floats(0, 100, allow_subnormal=False) | st.integers(0, 3)
    shares = data.draw(st.lists(weight, min_size=groups, max_size=groups))
    got = apportion(torch.tensor([shares], dtype=torch.float64), torch.tensor(caps), total)[0]
    assert got.sum() == total
    assert all(0 <= k <= cap for k, cap in zip(got.tolist(), caps, strict=True))
    for i, a in enumerate(shares):
        for j, b in enumerate(shares):
            if a > b and got[i] < caps[i]:
                assert got[j] <= got[i] + 1, "who weighs more is not left behind"


@pytest.mark.parametrize(
    ("shares", "caps", "total", "expected"),
    [
        ([2.0, 3.0, 5.0], [9, 9, 9], 10, [2, 3, 5]),
        ([0.5, 0.25, 0.25], [9, 9, 9], 5, [3, 1, 1]),
        ([8.0, 1.0, 1.0], [4, 9, 9], 10, [4, 3, 3]),
        ([1.0, 0.0, 0.0], [4, 6, 3], 10, [4, 3, 3]),
        ([0.0, 0.0], [5, 5], 4, [2, 2]),
    ],
)
def test_full_groups_pass_on_what_they_can_not_take(shares, caps, total, expected):
    got = apportion(torch.tensor([shares, shares]), torch.tensor(caps), total)
    assert got.tolist() == [expected] * 2
