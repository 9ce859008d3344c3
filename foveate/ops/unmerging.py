"""Attention over a virtual sequence in which a merged token stands at several positions.

mapping (B, N) int is the unique token (of U) at each of N virtual positions, -1 for none. Heads are
(B, H, U, d) and not rotated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.gather import rows_at, rows_summed


def stood(x: Tensor, mapping: Tensor) -> Tensor:
    """Heads (B, H, U, d) copied to all their virtual positions, (B, H, N, d)."""
    return rows_at(x, mapping.clamp(min=0))


def gathered(weights: Tensor, mapping: Tensor, count: int) -> Tensor:
    """Sum weights (B, H, R, N) of positions for each of `count` unique tokens, (B, H, R, count).

    The weight of a position without token must be 0.
    """
    index = mapping.clamp(min=0)[:, None, None].expand_as(weights)
    return weights.new_zeros(*weights.shape[:3], count).scatter_add(3, index, weights)


def averaged(x: Tensor, mapping: Tensor, count: int) -> Tensor:
    """Means of x (B, N, D) over the positions of each of `count` unique tokens, (B, count, D)."""
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
    """Mask (B, h, q, N) bool of the last q virtual rows, from the mask of the unique tokens.

    Causality follows virtual positions: copies of a token attend to each other in order, unless the
    token attends in both directions. What a later token could not attend to stays masked. A window
    limits positions and columns: a sliding cache drops columns, wherever their copies stand.

    Args:
        seen: (B, h, u, U) bool, mask of u unique rows over U columns.
        mapping: (B, N) int.
        rows: (B, q) int, the unique row at each virtual row.
        at: Ranks (B, u) and (B, U) of the unique rows and columns.
        window: Length of the sliding window, or None.
        prefill: Rows may attend to later columns, as those of a bidirectional prefix do.
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
    # Only bidirectional prefixes and blocks attend to later columns.
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
