import torch

from foveate.families.base import raster
from perf import peers


def test_ours_and_the_peers_choose_alike(monkeypatch):
    monkeypatch.setattr(peers, "SIZES", {144: raster(1, 12, 12), 240: raster(1, 12, 20)})
    monkeypatch.setattr(peers, "TILED", {180: (6, (2, 2))})
    monkeypatch.setattr(peers, "WIDTH", 32)
    monkeypatch.setattr(peers, "HUGE", 500)
    result = peers.measure(1)
    assert set(result["races"]) == {*peers.races(144, raster(1, 12, 12)), "HiRED, tiles"}
    for name, sizes in result["races"].items():
        for row in sizes.values():
            assert row["ours"] > 0 and row["peer"] > 0
            assert row["alike"] == 1 or name == "HiRED, tiles"
    assert "| DART, official | 144 |" in peers.page(result)


def test_the_peers_are_what_they_are_called():
    x = peers.random(30, 4)
    assert torch.equal(peers.naive_farthest(x, 9), peers.running_farthest(x, 9))
    merged = peers.matched(x, x, 5)
    assert merged.shape == (25, 4)
    assert torch.equal(merged, peers.merge(x[None], *peers.bipartite_soft_matching(x[None], 5))[0])
