import math

import torch

from foveate.ops.density import density_peaks


def test_clouds_become_clusters_around_their_middles():
    g = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0], [10, 0], [0, 20]])
    member = torch.randint(3, (1, 60), generator=g)
    member[0, :3] = torch.arange(3)
    x = middles[member] + torch.randn(1, 60, 2, generator=g)
    cluster, centre = density_peaks(x, 3)
    assert sorted(member[0, centre[0]].tolist()) == [0, 1, 2]
    assert torch.equal(member[0, centre[0]][cluster[0]], member[0])
    assert torch.equal(cluster.gather(1, centre)[0], torch.arange(3))


def test_every_point_has_one_cluster_also_among_copies():
    x = torch.ones(2, 7, 3)
    cluster, centre = density_peaks(x, 4)
    assert centre.tolist() == [[0, 1, 2, 3]] * 2
    assert torch.equal(cluster.gather(1, centre), torch.arange(4).expand(2, -1))
    assert cluster.min() >= 0 and cluster.max() < 4


def test_all_points_can_be_centres():
    x = torch.randn(1, 5, 3)
    cluster, centre = density_peaks(x, 5)
    assert torch.equal(centre.gather(1, cluster), torch.arange(5)[None])


def test_peaks_are_those_of_a_slow_search():
    """Distances over sqrt(D), as many nearest ones as clusters, height to the next denser point."""
    x = 2 * torch.randn(1, 24, 16, generator=torch.Generator().manual_seed(1))
    for count in (2, 3, 5):
        cluster, centre = density_peaks(x, count)
        apart = [[(a - b).norm().item() / 4 for b in x[0]] for a in x[0]]
        dense = [math.exp(-sum(d * d for d in sorted(row)[:count]) / count) for row in apart]
        most = max(map(max, apart))
        height = [
            min([d for d, other in zip(row, dense, strict=True) if other > own] or [most])
            for row, own in zip(apart, dense, strict=True)
        ]
        order = sorted(range(24), key=lambda i: -height[i] * dense[i])[:count]
        assert centre[0].tolist() == order
        near = [min(range(count), key=lambda c: row[order[c]]) for row in apart]
        assert cluster[0].tolist() == near
