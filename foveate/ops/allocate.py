"""Splits one token budget over the crops or frames of an item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from foveate.budget import split_evenly
from foveate.ops.select import top_k


def share_evenly(total: int, sizes: Sequence[int]) -> list[int]:
    """Split `total` as evenly as views of these sizes allow; empty views get 0.

    Raises `BudgetError` where a view with tokens would get none.
    """
    shares = [0] * len(sizes)
    open_ = [i for i, size in enumerate(sizes) if size]
    while open_:
        even = dict(zip(open_, split_evenly(total, len(open_)), strict=True))
        full = [i for i in open_ if sizes[i] < even[i]]
        if not full:
            for i, share in even.items():
                shares[i] = share
            break
        for i in full:
            shares[i] = sizes[i]
            total -= sizes[i]
        open_ = [i for i in open_ if i not in full]
    return shares


def share_in_proportion(total: int, sizes: Sequence[int]) -> list[int]:
    """Split `total` in proportion to `sizes`, at least 1 for each view that has tokens.

    The remainder of rounding goes to the largest fractions, lower index first.
    """
    held = [i for i, size in enumerate(sizes) if size]
    # Raises if there is less than one token for each view.
    split_evenly(total, len(held))
    exact = [divmod(size * total, sum(sizes)) for size in sizes]
    left = total - sum(whole for whole, _ in exact)
    bonus = sorted(held, key=lambda i: (-exact[i][1], i))[:left]
    shares = [whole + (i in bonus) for i, (whole, _) in enumerate(exact)]
    for i in held:
        if not shares[i]:
            shares[shares.index(max(shares))] -= 1
            shares[i] = 1
    return shares


def view_batches(
    members: Sequence[Tensor], shares: Sequence[int]
) -> Iterator[tuple[list[int], Tensor, int]]:
    """Batches of views with equal size and share: view numbers, slots (V, n), share."""
    alike: dict[tuple[int, int], list[int]] = {}
    for number, (slots, share) in enumerate(zip(members, shares, strict=True)):
        if share:
            alike.setdefault((len(slots), share), []).append(number)
    for (_, share), numbers in alike.items():
        yield numbers, torch.stack([members[i] for i in numbers]), share


def per_view_top_k(scores: Tensor, members: Sequence[Tensor], keep: int) -> Tensor:
    """Ascending indices (B, keep): the best tokens of each view, with `keep` split evenly.

    Args:
        scores: (B, N).
        members: Slots (n_v,) of each view.
        keep: Number of tokens over all views.
    """
    chosen, shares = [], share_evenly(keep, [len(m) for m in members])
    if len(members) == 1 and len(members[0]) == scores.shape[1]:
        return top_k(scores, keep)
    for _, slots, share in view_batches(members, shares):
        best = top_k(scores[:, slots].flatten(0, 1), share)
        chosen.append(slots.repeat(len(scores), 1).gather(1, best).view(len(scores), -1))
    return torch.cat(chosen, 1).sort(1).values
