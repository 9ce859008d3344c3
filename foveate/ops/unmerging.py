"""Attention over a virtual sequence in which each of a few tokens stands at several positions.

mapping (B, N) int says which unique token (of U) stands at each of N virtual positions, -1 for
none. Heads are (B, H, U, d) and not rotated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.gather import rows_at, rows_summed


def stood(x: Tensor, mapping: Tensor) -> Tensor:
    """Heads (B, H, U, d) copied to all places where they stand, (B, H, N, d)."""
    return rows_at(x, mapping.clamp(min=0))


def gathered(weights: Tensor, mapping: Tensor, count: int) -> Tensor:
    """Weights (B, H, R, N) of places as sums of each of `count` unique tokens, (B, H, R, count).

    Places of no token must weigh nothing.
    """
    index = mapping.clamp(min=0)[:, None, None].expand_as(weights)
    return weights.new_zeros(*weights.shape[:3], count).scatter_add(3, index, weights)


def averaged(x: Tensor, mapping: Tensor, count: int) -> Tensor:
    """Means of x (B, N, D) over the places of each of `count` unique tokens, (B, count, D)."""
    places = rows_summed(x.new_ones(*mapping.shape, 1), mapping, count)
    return rows_summed(x, mapping, count) / places.clamp(min=1)


def visible(
    seen: Tensor,
    mapping: Tensor,
    rows: Tensor,
    at: tuple[Tensor, Tensor],
    window: int | None,
    prefill: bool = True,
) -> Tensor:
    """What each of the last q virtual rows sees, (B, h, q, N) bool, from what unique tokens see.

    seen (B, h, u, U): what u unique rows see of U columns. rows (B, q): which of these stands at
    each virtual row. at: ranks (B, u) and (B, U) of unique rows and columns. prefill: rows may see
    later ones, as those of a prefix do.

    Order is that of virtual positions: copies of a token see each other as they follow, unless it
    sees others in both directions. What was hidden from a later token stays hidden. A window counts
    both places and columns: a cache that slides lets go of columns, wherever copies of them stand.
    """
    n, q = mapping.shape[1], rows.shape[1]
    columns = mapping.clamp(min=0)
    rank, ahead = at[0].gather(1, rows), at[1].gather(1, columns)
    own = _both(seen, rows, columns)
    later = (ahead[:, None, :] > rank[:, :, None])[:, None]
    steps = torch.arange(n, device=mapping.device)
    gap = steps[n - q :, None] - steps
    sees = (own | later) & (gap >= 0)
    if window is not None:
        held = (rank[:, :, None] - ahead[:, None, :] < window)[:, None]
        sees = (held & (gap >= 0) & (gap < window)).expand_as(own)
    if not prefill:
        return sees & (mapping >= 0)[:, None, None, :]
    # Only prefixes and blocks that see both ways look ahead.
    looks = (seen & (at[1][:, None, :] > at[0][:, :, None])[:, None]).any(-1)
    if bool(looks.any()):
        looks = looks.gather(2, rows[:, None].expand(-1, looks.shape[1], -1))
        same = (ahead[:, None, :] == rank[:, :, None])[:, None]
        sees = sees | own & (later | same) & looks[..., None]
    return sees & (mapping >= 0)[:, None, None, :]


def _both(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x (B, h, u, U) at rows (B, q) and columns (B, N), (B, h, q, N)."""
    x = rows_at(x, rows)
    return x.gather(3, columns[:, None, None, :].expand(-1, x.shape[1], x.shape[2], -1))
