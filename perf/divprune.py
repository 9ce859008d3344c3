"""Time of DivPrune's selection alone, against a loop that re-reads all selected rows."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.farthest import farthest_point
from perf.timing import interleaved, seconds

SIZES = [(576, 896, 56), (2880, 4096, 282)]


def naive_farthest(x: Tensor, k: int) -> Tensor:
    """Greedy max-min selection, literally: every step re-reads all selected rows."""
    unit = x / x.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    nearest = torch.topk(distance, 2, dim=0, largest=False).values[1]
    chosen = [nearest.argmax()]
    for _ in range(k - 1):
        rows = distance[torch.stack(chosen)]
        chosen.append(rows.min(0).values.argmax())
    return torch.stack(chosen)


def divprune_against_naive(rounds: int, device: str) -> list[dict]:
    """Median seconds of both at each size, and their ratio."""
    rows = []
    for n, d, k in SIZES:
        x = torch.randn(n, d, generator=torch.Generator().manual_seed(n)).to(device)
        taken = interleaved(
            {
                "ours": lambda x=x, k=k: seconds(lambda: farthest_point(x[None], k)),
                "naive": lambda x=x, k=k: seconds(lambda: naive_farthest(x, k)),
            },
            rounds,
        )
        same = torch.equal(
            farthest_point(x[None], k)[0].sort().values, naive_farthest(x, k).sort().values
        )
        rows.append(
            {
                "n": n,
                "d": d,
                "k": k,
                "ours_ms": taken["ours"] * 1000,
                "naive_ms": taken["naive"] * 1000,
                "speedup": taken["naive"] / taken["ours"],
                "same_selection": same,
            }
        )
    return rows
