"""Attention probabilities from queries and keys, in blocks of queries without a full map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.ops.gather import rows_at

# Largest number of probabilities in memory: 64 MB in float32.
ELEMENTS = 2**24
# Largest full map of one head that is kept: 256 MB in float32, for 8,192 columns. It is split into
# PARTS blocks of at least ROWS queries.
MAP, PARTS, ROWS = 2**26, 4, 512


def folded(x: Tensor, shared: int) -> Tensor:
    """Reshape (B, H, q, n) to (B, shared, H / shared * q, n).

    Query heads that share a key head become further rows, so keys need not be repeated.
    """
    return x.unflatten(1, (shared, -1)).flatten(2, 3)


def shown(mask: Tensor) -> Tensor:
    """A bool or additive mask as bool, True where a row attends."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def scaled_product(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Logits (B, H, q, K) in float32 of queries (B, H, q, d) and keys with the same heads."""
    if query.dtype == torch.float16:
        # Scale first: unscaled products overflow in half precision.
        return ((query * scaling) @ key.mT).float()
    return (query @ key.mT).float() * scaling


def weighed(
    logits: Tensor,
    mask: Tensor | None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Attention probabilities (B, H, q, K) from float32 logits, which are overwritten.

    Args:
        logits: (B, H, q, K) float32.
        mask: Bool with True where a row attends, or additive. A row that attends to nothing gets
            uniform probabilities.
        softcap: Bound of the logits, applied with tanh before the mask.
        sinks: (H,) logit of a column without a value that takes part in the softmax.
        temperature: Divides all logits.
    """
    if softcap is not None:
        logits = logits.div_(softcap).tanh_().mul_(softcap)
    lowest = torch.finfo(logits.dtype).min
    if mask is not None and mask.dtype != torch.bool:
        logits = logits + mask
    if temperature != 1:
        logits = logits.div_(temperature).clamp_(min=lowest)
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill_(~mask, lowest)
    if sinks is None:
        return logits.softmax(-1)
    sink = (sinks.float() / temperature).view(-1, 1, 1).expand(*logits.shape[:-1], 1)
    return torch.cat([logits, sink], -1).softmax(-1)[..., :-1]


@dataclass(frozen=True, eq=False)
class Heads:
    """Queries and keys of one decoder layer, after norms and rotation.

    Attributes:
        query: (B, H, N, d).
        key: (B, Hkv, N, d).
        scaling: Factor of the products.
        valid: (B, N) bool, False at padding.
        mask: (B or 1, 1, N, N), bool or additive. None for a causal mask, limited to `window`.
        window: Length of the sliding window, or None.
        softcap: See `weighed`.
        sinks: See `weighed`.
    """

    query: Tensor
    key: Tensor
    scaling: float
    valid: Tensor
    mask: Tensor | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    def rows(self, rows: Tensor, temperature: float = 1.0, first: int | None = None) -> Tensor:
        """Attention probabilities (B, H, R, N) of the columns `rows` (B, R), in float32.

        Args:
            rows: (B, R) int.
            temperature: Divides the logits.
            first: Return the first columns only, (B, H, R, first). The rows must not attend to
                others.
        """
        query, key = rows_at(self.query, rows), self.key[:, :, :first]
        b, shared, n, _ = key.shape
        logits = scaled_product(folded(query, shared), key, self.scaling)
        logits = logits.view(b, query.shape[1], -1, n)
        return weighed(logits, self._mask(rows, n), self.softcap, self.sinks, temperature)

    def blocks(self, rows: Tensor, temperature: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks of `rows`, (B, r), with their attention (B, H, r, N), until all rows are done."""
        b, heads, n, _ = self.query.shape
        yield from (
            (some, self.rows(some, temperature))
            for some in rows.split(max(1, ELEMENTS // (b * heads * n)), 1)
        )

    def few_at_a_time(self) -> Iterator[Heads]:
        """All heads in groups whose full maps fit into memory, at least one head per group."""
        b, heads, n, _ = self.query.shape
        group = heads // self.key.shape[1]
        fit = min(heads, max(1, ELEMENTS // (b * n * n)))
        # Whole groups of heads that share a key head, or a part of one group.
        fit = fit // group * group or next(f for f in range(fit, 0, -1) if group % f == 0)
        for i in range(0, heads, fit):
            own, keys = slice(i, i + fit), slice(i // group, (i + fit - 1) // group + 1)
            sinks = None if self.sinks is None else self.sinks[own]
            yield replace(self, query=self.query[:, own], key=self.key[:, keys], sinks=sinks)

    def visible(self, rows: Tensor) -> Tensor:
        """(B, R, N) bool: the columns that each of `rows` (B, R) attends to."""
        return shown(self._mask(rows, self.key.shape[2]))[:, 0]

    def _mask(self, rows: Tensor, n: int) -> Tensor:
        """Mask (B, 1 or H, R, n) of `rows` (B, R) over the first n columns, bool or additive."""
        if self.mask is not None:
            index = rows[:, None, :, None].expand(-1, self.mask.shape[1], -1, self.mask.shape[3])
            return self.mask.expand(len(rows), -1, -1, -1).gather(2, index)[..., :n]
        behind = rows[..., None] - torch.arange(n, device=rows.device)
        seen = (behind >= 0) & self.valid[:, None, :n]
        return (seen if self.window is None else seen & (behind < self.window))[:, None]


def received_within(
    heads: Heads, group: Tensor, most: int | None = None, groups: int | None = None
) -> Tensor:
    """Mean attention (B, N) that each column receives from its group, over heads and rows.

    Args:
        heads: Queries and keys.
        group: (B, N) int. Columns with the same number form a group. -1 belongs to none and gets 0.
        most: Largest number of grouped columns in a row, if known. Computing it is a device sync.
        groups: Number of groups, if known. Computing it is a device sync.
    """
    asked = group >= 0
    most = int(asked.sum(1).max()) if most is None else most
    groups = int(group.max()) + 1 if groups is None else groups
    rows = asked.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    total = torch.zeros(group.shape, device=group.device)
    for some, seen in heads.blocks(rows):
        own = group.gather(1, some)
        alike = (own[..., None] == group[:, None]) & (own >= 0)[..., None]
        total += seen.mean(1).masked_fill(~alike, 0).sum(1)
    members = torch.zeros(len(group), groups + 1, device=group.device)
    members.scatter_add_(1, group + 1, torch.ones_like(total))
    return total / members.gather(1, group + 1)


def paid(heads: Heads, rows: Tensor, real: Tensor) -> Tensor:
    """Mean attention (B, N) that each column gets from `rows` (B, R), over heads and real rows."""
    total = torch.zeros(heads.valid.shape, device=rows.device)
    done = 0
    for some, seen in heads.blocks(rows):
        own = real[:, done : done + some.shape[1]]
        total += (seen.mean(1) * own[..., None]).sum(1)
        done += some.shape[1]
    return total / real.sum(1, keepdim=True).clamp(min=1)


def page_rank(heads: Heads, temperature: float, iters: int, damping: float = 0.0) -> Tensor:
    """Importance (B, N): PageRank on the attention map, from rows to columns, `iters` steps.

    It starts uniform over valid columns. Heads are combined by the root mean square. 0 at padding.
    """
    valid = heads.valid.float()
    even = (valid / valid.sum(1, keepdim=True))[:, None]
    # Heads are independent, so a few at a time need no map twice.
    found = [_flown(few, even, temperature, iters, damping) for few in heads.few_at_a_time()]
    return torch.cat(found, 1).square().mean(1).sqrt() * valid


def _flown(heads: Heads, even: Tensor, temperature: float, iters: int, damping: float) -> Tensor:
    """Rank (B, H, N) after all steps, from `even` (B, 1, N)."""
    b, h, n, _ = heads.query.shape
    mass = even.expand(-1, h, -1)
    rows = torch.arange(n, device=even.device).expand(b, -1)
    fits = b * h * n * n <= MAP
    # Later columns are not computed, so more blocks save up to half of the map.
    step = max(ROWS, -(-n // PARTS)) if fits else max(1, ELEMENTS // (b * h * n))

    def blocks() -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, n, step):
            some = slice(start, min(n, start + step))
            yield (
                some,
                heads.rows(
                    rows[:, some], temperature, None if heads.mask is not None else some.stop
                ),
            )

    held = list(blocks()) if fits and iters else None
    for _ in range(iters):
        flown = torch.zeros_like(mass)
        for some, seen in held or blocks():
            flown[..., : seen.shape[-1]] += (mass[:, :, None, some] @ seen)[:, :, 0]
        mass = flown * (1 - damping) + even * damping
    return mass
