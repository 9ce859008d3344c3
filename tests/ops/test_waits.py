"""What runs otherwise on a GPU, so that the host needn't wait for it, gives the same there."""

import torch

from foveate.methods.tokens.vispruner import unlike
from foveate.ops.facility import facility_location
from foveate.ops.farthest import gram
from foveate.ops.importance import probe_rows
from foveate.ops.packed import pack_tokens
from perf.fake_cuda import FakeCudaTensor, counted, fake_cuda


def on_gpu(run, *tensors):
    """What `run` gives of tensors on a pretended GPU, where it may wait for nothing."""
    with fake_cuda(), counted() as found:
        out = run(*map(FakeCudaTensor, tensors))
    assert not found
    return out.held


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_facility_location(monkeypatch):
    x = points(2, 40, 8)
    x[:, 7] = x[:, 3]
    alike, bonus = (x @ x.mT).sigmoid(), points(2, 40, seed=1).abs()

    def picks(alike, bonus):
        return facility_location(alike, bonus, 25)

    assert torch.equal(on_gpu(picks, alike, bonus), picks(alike, bonus))
    monkeypatch.setattr("foveate.ops.facility.ELEMENTS", 2 * 40 * 7)
    assert torch.equal(on_gpu(picks, alike, bonus), picks(alike, bonus))


def test_rounds_of_removal():
    # In one dimension most of the nearest are copies on the same side.
    x = torch.cat([points(1, 80, 2).sign(), points(1, 80, 2, seed=1)], 0)
    order = points(2, 80, seed=2).argsort(dim=1)

    def survivors(x, order):
        return unlike(x, order, 20, 8)

    assert torch.equal(on_gpu(survivors, x, order), survivors(x, order))


def test_products_of_all_pairs():
    x = points(1, 150, 4)
    assert torch.allclose(on_gpu(gram, x), x @ x.mT, atol=1e-6)


def test_what_is_counted_beforehand_is_not_asked_for():
    valid = torch.arange(30).expand(2, -1) >= torch.tensor([[0], [9]])
    important = valid & (torch.arange(30) % 3 == 0)
    lengths, counts = valid.sum(1).tolist(), important.sum(1).tolist()
    rows, real = probe_rows(valid, 4, 5, 0)
    found = on_gpu(lambda v: probe_rows(v, 4, 5, 0, lengths)[0], valid)
    assert torch.equal(found, rows) and real.sum(1).tolist() == [9, 9]
    keys, values = points(2, 2, 30, 8), points(2, 2, 30, 8, seed=1)
    packed = pack_tokens(keys, values, valid, important, (4, 2))
    told = pack_tokens(keys, values, valid, important, (4, 2), (lengths, counts))
    for a, b in zip(packed.read(), told.read(), strict=True):
        assert torch.equal(a, b)
