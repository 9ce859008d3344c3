"""Dominant and contextual tokens: the best stay, all others gather around a few of the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.gather import rows_at
from foveate.ops.nearest import nearest, spread
from foveate.ops.select import top_k


def dominant_contextual(
    score: Tensor, keys: Tensor, dominant: int, contextual: int
) -> tuple[Tensor, Tensor]:
    """New token of every token (B, N), -1 for none, and the token at which each stands (B, K).

    The `dominant` largest of score (B, N) come first, in order. Of the rest, `contextual` at equal
    steps are targets, and all others join the target of largest cosine of keys (B, N, d).
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
    """Weight (B, N) of every token in the sum that is its new one.

    1 for the token at which a new one stands and 1 / joined for those that joined it: the sum is
    that token plus their mean. mean: 1 / members for all instead.
    """
    b, k = at.shape
    slot = group.masked_fill(group < 0, k)
    members = torch.zeros(b, k + 1, device=at.device)
    members.scatter_add_(1, slot, torch.ones(group.shape, device=at.device))
    if mean:
        return (1 / members).gather(1, slot)
    return (1 / (members - 1).clamp(min=1)).gather(1, slot).scatter(1, at, 1.0)
