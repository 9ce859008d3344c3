from dataclasses import replace

import pytest
import torch

from foveate.ops import attention
from foveate.ops.attention import Heads, page_rank, received_within


def heads(n=9, b=2, padded=True, seed=0, shared=2):
    g = torch.Generator().manual_seed(seed)
    valid = torch.ones(b, n, dtype=torch.bool)
    if padded:
        valid[0, :2] = False
    query, key = (torch.randn(b, h, n, 4, generator=g) for h in (2 * shared, 2))
    return Heads(query, key, 0.5, valid)


def full(h, temperature=1.0):
    """All rows, by the formula."""
    n = h.query.shape[2]
    key = h.key.repeat_interleave(h.query.shape[1] // h.key.shape[1], 1)
    logits = h.query @ key.mT * h.scaling
    visible = torch.ones(n, n, dtype=torch.bool).tril() & h.valid[:, None, None]
    return (logits.masked_fill(~visible, float("-inf")) / temperature).softmax(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_rows_are_those_of_the_full_map(temperature):
    h, rows = heads(), torch.tensor([[2, 5, 8], [0, 3, 3]])
    expected = full(h, temperature)
    got = h.rows(rows, temperature)
    for b in range(2):
        assert torch.allclose(got[b], expected[b][:, rows[b]], atol=1e-6)


@pytest.mark.parametrize("kind", [torch.bool, torch.float])
def test_a_mask_says_what_is_seen(kind):
    h = heads(padded=False)
    seen = torch.ones(9, 9, dtype=torch.bool).tril() & (torch.arange(9) != 4)
    seen[:, 0] = True
    mask = seen if kind == torch.bool else torch.zeros(9, 9).masked_fill(~seen, -1e9)
    masked = Heads(h.query, h.key, h.scaling, h.valid, mask[None, None])
    got = masked.rows(torch.arange(9).expand(2, -1))
    assert (got[..., 4] == 0).all() and torch.allclose(got.sum(-1), torch.ones(()))


@pytest.mark.parametrize("elements", [1, 200, 2**24])
def test_block_by_block_is_all_at_once(monkeypatch, elements):
    monkeypatch.setattr(attention, "ELEMENTS", elements)
    h = heads()
    group = torch.tensor([[-1, -1, 0, 0, 0, -1, 1, 1, -1], [0, 0, -1, 0, -1, -1, -1, 1, 2]])
    whole = full(h).mean(1)
    expected = torch.zeros(2, 9)
    for b in range(2):
        for j in range(9):
            own = (group[b] == group[b, j]).nonzero()[:, 0]
            if group[b, j] >= 0:
                expected[b, j] = whole[b, own, j].mean()
    assert torch.allclose(received_within(h, group), expected, atol=1e-6)
    maps = full(h, 0.1).nan_to_num()
    mass = (h.valid / h.valid.sum(1, keepdim=True))[:, None, None].expand(-1, 4, -1, -1)
    for _ in range(3):
        mass = mass @ maps
    rank = page_rank(h, 0.1, 3)
    assert torch.allclose(rank, mass[:, :, 0].square().mean(1).sqrt(), atol=1e-6)
    assert torch.allclose(mass.sum(-1), torch.ones(()), atol=1e-5), "no mass is lost"


def test_damping_mixes_an_even_share_in():
    h = heads(padded=False)
    assert torch.allclose(page_rank(h, 0.1, 4, damping=1.0), torch.full((2, 9), 1 / 9))


@pytest.mark.parametrize("fit", [1, 2, 3, 4, 8])
def test_few_heads_at_a_time_rank_alike(fit, monkeypatch):
    h = replace(heads(), sinks=torch.arange(4.0))
    whole = page_rank(h, 0.1, 3)
    monkeypatch.setattr(attention, "ELEMENTS", 2 * 81 * fit)
    sizes = [part.query.shape[1] for part in h.few_at_a_time()]
    assert sum(sizes) == 4 and max(sizes) == {1: 1, 2: 2, 3: 2}.get(fit, 4)
    torch.testing.assert_close(page_rank(h, 0.1, 3), whole)
    monkeypatch.setattr(attention, "MAP", 0)
    torch.testing.assert_close(page_rank(h, 0.1, 3), whole)
