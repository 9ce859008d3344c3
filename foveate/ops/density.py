"""Density peaks clustering."""

from __future__ import annotations

import torch
from torch import Tensor


def density_peaks(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cluster (B, N) of every point, and the index (B, count) of each cluster's centre.

    The density of a point is exp(-mean squared distance to its `count` nearest points, itself
    included). Its height is the distance to the nearest denser point. The centres are the points
    with the largest product of both, in this order. Every point joins its nearest centre. Distances
    are divided by sqrt(D). Ties go to the lower index.

    Args:
        x: (B, N, D).
        count: Number of clusters.
    """
    x = x.float()
    distance = torch.cdist(x, x) / x.shape[2] ** 0.5
    near = distance.topk(count, dim=2, largest=False).values
    density = (-near.square().mean(2)).exp()
    denser = density[:, None] > density[:, :, None]
    top = distance.flatten(1).amax(1)[:, None, None]
    height = distance.masked_fill(~denser, float("inf")).minimum(top).amin(2)
    order = (height * density).sort(dim=1, descending=True, stable=True).indices
    centre = order[:, :count]
    to_centre = distance.gather(2, centre[:, None].expand(-1, x.shape[1], -1))
    cluster = to_centre.argmin(2)
    own = torch.arange(count, device=x.device).expand_as(centre)
    return cluster.scatter(1, centre, own), centre
