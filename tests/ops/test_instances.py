"""Tokens by instance against the obvious way."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from foveate.families.base import raster
from foveate.ops.instances import evenly, evenly_within, instances, quotas


def test_overlaps_go_to_the_smaller_instance():
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :3, :3] = masks[1, 1:3, 1:3] = masks[2, 3, 3] = True
    found = instances(masks, raster(1, 4, 4).position).view(4, 4)
    assert found.tolist() == [[0, 0, 0, 3], [0, 1, 1, 3], [0, 1, 1, 3], [3, 3, 3, 2]]
    special = torch.tensor([[-1, -1, -1], [0, 1, 1]])
    assert instances(masks, special).tolist() == [3, 1]
    assert instances(masks[:0], special).tolist() == [0, 0]


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6), data=st.data())
def test_every_instance_gets_one_where_there_is_room(sizes, data):
    if not sum(sizes):
        return
    total = data.draw(st.integers(1, sum(sizes)))
    share = quotas(sizes, total)
    groups = sum(n > 0 for n in sizes)
    assert sum(share) <= total and all(0 <= s <= n for s, n in zip(share, sizes, strict=True))
    if total >= groups:
        assert all(s >= 1 for s, n in zip(share, sizes, strict=True) if n)
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    chosen = evenly_within(group, total)
    assert len(chosen) == total == len(chosen.unique()) and chosen.tolist() == sorted(chosen)
    taken = group[chosen].bincount(minlength=len(sizes))
    assert (taken >= torch.tensor(share)).all()


def test_equal_steps():
    assert evenly(16, 5).tolist() == [0, 3, 6, 9, 12]
    assert evenly(3, 0).tolist() == [] and evenly(3, 3).tolist() == [0, 1, 2]
