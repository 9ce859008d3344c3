"""Dominant and contextual tokens: the best tokens are kept, the others merge into a few targets."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.gather import rows_at
from foveate.ops.nearest import nearest, spread
from foveate.ops.select import top_k


def dominant_contextual(
    score: Tensor, keys: Tensor, dominant: int, contextual: int
) -> tuple[Tensor, Tensor]:
    """Merged token (B, N) of every token, -1 for none, and the token (B, K) at each merged one.

    The `dominant` tokens with the largest score come first, in order. Of the rest, `contextual`
    tokens at equal steps are targets. All others join the target with the largest cosine of keys.

    Args:
        score: (B, N).
        keys: (B, N, d).
        dominant: Number of dominant tokens.
        contextual: Number of targets.
    """
    b, n, _ = keys.shape
    best = top_k(score, dominant)
    group = torch.full((b, n), -1, device=score.device)
    group.scatter_(1, best, torch.arange(dominant, device=score.device).expand(b, -1))
    chosen = spread(n - dominant, contextual, score.device)
    if not len(chosen):
        return group, best
    rest = (group >= 0).long().argsort(dim=1, stable=True)[:, : n - dominant]
    keys = rows_at(keys, rest)
    nearby = nearest(keys, keys[:, chosen])
    nearby[:, chosen] = torch.arange(len(chosen), device=score.device)
    group.scatter_(1, rest, nearby + dominant)
    return group, torch.cat([best, rest[:, chosen]], 1)


def joining_weights(group: Tensor, at: Tensor, mean: bool = False) -> Tensor:
    """Weight (B, N) of every token in the sum that its merged token is.

    A target has weight 1, and the tokens that joined it share weight 1: the sum is the target plus
    their mean.

    Args:
        group: (B, N) int, merged token of every token, -1 for none.
        at: (B, K) int, the target of each merged token.
        mean: Use 1 / members for all instead, a plain mean.
    """
    b, k = at.shape
    slot = group.masked_fill(group < 0, k)
    members = torch.zeros(b, k + 1, device=at.device)
    members.scatter_add_(1, slot, torch.ones(group.shape, device=at.device))
    if mean:
        return (1 / members).gather(1, slot)
    return (1 / (members - 1).clamp(min=1)).gather(1, slot).scatter(1, at, 1.0)
