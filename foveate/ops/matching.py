"""Bipartite matching and merging of tokens. Every merge is an assignment `assign`.

assign (B, N) int is the index of the new token, of `count`, that each token merges into; -1 for
none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.gather import rows_summed


def bipartite_soft_matching(
    metric: Tensor, r: int, class_token: bool = False, distill_token: bool = False
) -> tuple[Tensor, int]:
    """Merge the r most similar pairs of even and odd tokens; returns assign (B, N) and count.

    Each even token is paired with the odd one of largest cosine. New order: even tokens that do not
    merge, most similar first (ascending with a class token), followed by the odd tokens.

    Args:
        metric: (B, N, C).
        r: Number of merges.
        class_token: Token 0 never merges.
        distill_token: Token 1 takes no other token in, and stays second.
    """
    b, n, _ = metric.shape
    r = min(r, (n - class_token - distill_token) // 2)
    steps = torch.arange(n, device=metric.device).expand(b, n)
    if r <= 0:
        return steps, n
    even, odd = _unit(metric[:, ::2]), _unit(metric[:, 1::2])
    scores = even @ odd.mT
    if class_token:
        scores[:, 0] = float("-inf")
    if distill_token:
        scores[:, :, 0] = float("-inf")
    order = scores.amax(2).argsort(dim=1, descending=True, stable=True)
    merged, alone = order[:, :r], order[:, r:]
    if class_token:
        alone = alone.sort(1).values
    m = alone.shape[1]
    place = torch.empty_like(order).scatter_(1, alone, steps[:, :m])
    place.scatter_(1, merged, scores.argmax(2).gather(1, merged) + m)
    assign = torch.empty_like(steps)
    assign[:, ::2] = place
    assign[:, 1::2] = steps[:, : odd.shape[1]] + m
    if distill_token:
        # The first odd token moves to place 1, after the first even one.
        first, between = assign == m, (assign > 0) & (assign < m)
        assign = torch.where(first, 1, assign + between)
    return assign, n - r


def pair_up(
    metric: Tensor, class_token: bool = False, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """For each even token the most similar odd token: best (B, E) and partner (B, E).

    best is the cosine, -inf for tokens that may not merge. partner is the index among the odd
    tokens.

    Args:
        metric: (B, N, C).
        class_token: Token 0 may not merge.
        valid: (B, N) bool, False at padding, which comes last and may not merge.
    """
    even, odd = _unit(metric[:, ::2]), _unit(metric[:, 1::2])
    if not odd.shape[1]:
        best = even.new_full(even.shape[:2], float("-inf"))
        return best, torch.zeros_like(best, dtype=torch.long)
    scores = even @ odd.mT
    if valid is not None:
        held = valid[:, ::2, None] & valid[:, None, 1::2]
        scores = scores.masked_fill(~held, float("-inf"))
    if class_token:
        scores[:, 0] = float("-inf")
    best, partner = scores.max(2)
    return best, partner


def merge_chosen(
    chosen: Tensor, best: Tensor, partner: Tensor, valid: Tensor, ascending: bool = False
) -> tuple[Tensor, int]:
    """Merge the even tokens `chosen` (B, E) into their partners; returns assign (B, N) and count.

    Rows may end with different counts; `count` is the largest. The new order is as in
    `bipartite_soft_matching`: even tokens that do not merge, most similar first or `ascending`,
    followed by the odd tokens.
    """
    alone = valid[:, ::2] & ~chosen
    if ascending:
        place = alone.long().cumsum(1) - 1
    else:
        place = _ranks(best.masked_fill(~alone, float("-inf")))
    m = alone.sum(1, keepdim=True)
    assign = torch.empty_like(valid, dtype=torch.long)
    assign[:, ::2] = torch.where(chosen, m + partner, place)
    assign[:, 1::2] = m + valid[:, 1::2].long().cumsum(1) - 1
    assign.masked_fill_(~valid, -1)
    return assign, int(assign.max()) + 1


def above(best: Tensor, threshold: float, most: Tensor | int) -> Tensor:
    """Pairs (B, E) with a similarity above `threshold`, at most the `most` (B, 1) best per row."""
    return (best > threshold) & (_ranks(best) < most)


def best_of_batch(best: Tensor, pairs: int, most: Tensor | int) -> tuple[Tensor, float]:
    """The `pairs` best pairs of the whole batch, and the similarity of the next one, at least 0.

    At most the `most` (B, 1) best pairs of each row take part.
    """
    flat = best.masked_fill(_ranks(best) >= most, float("-inf")).flatten()
    order = flat.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[order[:pairs]] = True
    left = flat[order[pairs : pairs + 1]].clamp(min=0)
    return (chosen & flat.isfinite()).view_as(best), float(left) if len(left) else 0.0


def kth_bipartite_soft_matching(metric: Tensor, k: int) -> tuple[Tensor, int]:
    """Merge every token into the most similar of each k-th token: assign (B, N), N // k.

    Tokens after the last full group of k are assigned to -1.
    """
    b, n, c = metric.shape
    count = n // k
    groups = _unit(metric[:, : count * k]).view(b, count, k, c)
    takers = groups[:, :, -1]
    place = (groups[:, :, :-1].reshape(b, -1, c) @ takers.mT).argmax(2).view(b, count, k - 1)
    own = torch.arange(count, device=metric.device).expand(b, count)
    assign = metric.new_full((b, n), -1, dtype=torch.long)
    assign[:, : count * k] = torch.cat([place, own[..., None]], 2).flatten(1)
    return assign, count


def merge(x: Tensor, assign: Tensor, count: int, mode: str = "mean") -> Tensor:
    """Reduce x (B, N, D) to (B, count, D), with mode "mean" or "sum"."""
    total = rows_summed(x, assign, count)
    if mode == "sum":
        return total
    members = rows_summed(x.new_ones(*assign.shape, 1), assign, count)
    return total / members.clamp(min=1)


def schedule(r: int | tuple | list, blocks: int) -> list[int]:
    """Number of merges in each of `blocks` blocks.

    Args:
        r: An int for all blocks. Or a pair (r, inflection) with a float inflection in [-1, 1], for
            a linear schedule that falls (-1: from 2 r to 0) or rises (1). Or a sequence with one
            count per block, filled with zeros.
        blocks: Number of blocks.
    """
    if isinstance(r, int):
        return [r] * blocks
    if len(r) == 2 and isinstance(r[1], float):
        low = int(r[0] * (1 - r[1]))
        step = (2 * r[0] - 2 * low) / max(1, blocks - 1)
        return [int(low + step * i) for i in range(blocks)]
    return (list(r) + [0] * blocks)[:blocks]


def spread(total: int, blocks: int, kind: str = "constant") -> list[int]:
    """Spread `total` merges over `blocks` blocks.

    Args:
        total: Number of merges.
        blocks: Number of blocks.
        kind: "constant": evenly, larger counts first. "linear": falls from twice the mean, until
            all are spread. "reverse_linear": the reverse of "linear".
    """
    if kind == "constant":
        base, extra = divmod(total, blocks)
        return [base + (i < extra) for i in range(blocks)]
    first = 2 * total // blocks
    out, left = [], total
    for i in range(blocks):
        out.append(min(left, int(first - i * first / blocks)))
        left -= out[-1]
    # The remainder of rounding down.
    for i in range(left):
        out[i % blocks] += 1
    return out[::-1] if kind == "reverse_linear" else out


def next_merges(n: int, target: int, blocks: int) -> int | None:
    """Merges in the next block, so that n tokens become `target` after `blocks` blocks.

    Merges are spread evenly. A block merges at most half of its tokens. None where that is not
    enough.
    """

    def left(most: int) -> int:
        rest = n
        for _ in range(blocks):
            rest -= min(most, rest // 2)
        return rest

    low, high = 0, n // 2
    if left(high) > target:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if left(middle) <= target else (middle + 1, high)
    return min(low, n - target, n // 2)


def _ranks(x: Tensor) -> Tensor:
    """Rank of every entry in its row, the largest first, ties in order."""
    return x.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
