"""Importance of tokens from the attention of a few probe rows, and how many tokens are needed."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.attention import Heads
from foveate.ops.select import top_mask
from foveate.ops.transfer import on_device


def probe_rows(
    valid: Tensor, recent: int, random: int, seed: int, lengths: list[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Probe rows (B, R): the last `recent` tokens and `random` earlier ones; and which are real.

    Rows are drawn by rank without replacement, so padding and other samples do not change the
    result. Slots that are not real repeat the last token. All columns where there are no more.

    Args:
        valid: (B, N) bool.
        recent: Number of last tokens.
        random: Number of random earlier tokens.
        seed: Seed of the draw.
        lengths: Valid columns of each row, if known. Computing them is a device sync.
    """
    n = valid.sum(1, keepdim=True)
    lengths = n[:, 0].tolist() if lengths is None else lengths
    rank = valid.cumsum(1) - 1
    draw = torch.rand(valid.shape[1], generator=torch.Generator().manual_seed(seed))
    score = on_device(draw, valid.device)[rank.clamp(min=0)].masked_fill(rank >= n - recent, 2.0)
    chosen = top_mask(score, n[:, 0].clamp(max=recent + random), valid)
    count = chosen.sum(1, keepdim=True)
    most = min(max(lengths), recent + random)
    rows = chosen.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    real = torch.arange(rows.shape[1], device=rows.device) < count
    return torch.where(real, rows, rows.gather(1, (count - 1).clamp(min=0))), real


def received(heads: Heads, rows: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (B, N) that each column gets from the rows, and how many rows can attend to it.

    Summed over rows, mean over heads, computed in blocks.

    Args:
        heads: Queries and keys.
        rows: (B, R) int.
        real: (B, R) bool, rows that count.
    """
    mass = torch.zeros(heads.valid.shape, device=rows.device)
    sees, start = torch.zeros_like(mass), 0
    for some, seen in heads.blocks(rows):
        weight = real[:, start : start + some.shape[1], None]
        mass += (seen.mean(1) * weight).sum(1)
        sees += (heads.visible(some) & weight).sum(1)
        start += some.shape[1]
    return mass, sees


def seen_behind(valid: Tensor) -> Tensor:
    """Number of tokens (B, N) that can attend to each column under a causal mask, with itself."""
    return valid.flip(1).cumsum(1).flip(1)


def needed(mass: Tensor, valid: Tensor, tau: float) -> Tensor:
    """How many (B,) of the largest entries of `mass` (B, N) sum to the ratio tau of the total."""
    count = valid.sum(1)
    if tau >= 1:
        return count
    # In float64, because float32 loses the last of thousands of summands.
    mass = mass.double().masked_fill(~valid, 0)
    held = mass.sort(dim=1, descending=True).values.cumsum(1)
    return ((held < tau * held[:, -1:]).sum(1) + 1).minimum(count)


def most_important(score: Tensor, count: Tensor, valid: Tensor) -> Tensor:
    """(B, N) bool: the `count` (B,) largest of `score` (B, N), always with the last token."""
    last = seen_behind(valid) == 1
    return top_mask(score.masked_fill(last & valid, float("inf")), count, valid)
