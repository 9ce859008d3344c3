"""Attention from queries and keys, some query rows at a time, so that no full map is ever made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.ops.gather import rows_at

# Probabilities in flight: 64 MB in float32.
ELEMENTS = 2**24
# The largest map that is held, of one head: 256 MB in float32, for 8,192 columns. In so many parts,
# of so many rows at least.
MAP, PARTS, ROWS = 2**26, 4, 512


def folded(x: Tensor, shared: int) -> Tensor:
    """(B, H, q, n) as (B, shared, H / shared * q, n): heads that share a key are more rows of it.

    So that no key is copied.
    """
    return x.unflatten(1, (shared, -1)).flatten(2, 3)


def shown(mask: Tensor) -> Tensor:
    """A mask of logits, bool or added to them, as bool with True for what is seen."""
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def scaled_product(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Logits (B, H, q, K), float32, of queries (B, H, q, d) and as many heads of keys."""
    if query.dtype == torch.float16:
        # Products that are scaled afterwards go beyond what half precision holds.
        return ((query * scaling) @ key.mT).float()
    return (query @ key.mT).float() * scaling


def weighed(
    logits: Tensor,
    mask: Tensor | None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Attention (B, H, q, K) of logits in float32, which it writes over.

    mask: bool with True for what is seen, or added to the logits; a row that sees nothing attends
    evenly. softcap: bound of logits, which a tangent brings them under before the mask. sinks (H,):
    logit per head of a column that takes its share and has no value. temperature: divides all.
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
    """What one decoder layer attends with, after its norms and rotation.

    query (B, H, N, d), key (B, Hkv, N, d). scaling: factor of their products. valid (B, N) bool:
    columns that are no padding. mask: what each column sees, (B or 1, 1, N, N), bool or added to
    the logits; None is every column up to its own, or the last `window` of these. softcap, sinks:
    see `weighed`.
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
        """Attention (B, H, R, N) of columns `rows` (B, R), float32, logits over `temperature`.

        first: look at so many first columns only, (B, H, R, first), where the rest is unseen.
        """
        query, key = rows_at(self.query, rows), self.key[:, :, :first]
        b, shared, n, _ = key.shape
        logits = scaled_product(folded(query, shared), key, self.scaling)
        logits = logits.view(b, query.shape[1], -1, n)
        return weighed(logits, self._mask(rows, n), self.softcap, self.sinks, temperature)

    def blocks(self, rows: Tensor, temperature: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
        """Some of `rows` (B, r) with their attention (B, H, r, N), until all rows were."""
        b, heads, n, _ = self.query.shape
        yield from (
            (some, self.rows(some, temperature))
            for some in rows.split(max(1, ELEMENTS // (b * heads * n)), 1)
        )

    def few_at_a_time(self) -> Iterator[Heads]:
        """All heads, as many at a time as have maps that fit in flight together, at least one."""
        b, heads, n, _ = self.query.shape
        group = heads // self.key.shape[1]
        fit = min(heads, max(1, ELEMENTS // (b * n * n)))
        # Whole groups that share a key, or a part of one.
        fit = fit // group * group or next(f for f in range(fit, 0, -1) if group % f == 0)
        for i in range(0, heads, fit):
            own, keys = slice(i, i + fit), slice(i // group, (i + fit - 1) // group + 1)
            sinks = None if self.sinks is None else self.sinks[own]
            yield replace(self, query=self.query[:, own], key=self.key[:, keys], sinks=sinks)

    def visible(self, rows: Tensor) -> Tensor:
        """(B, R, N) bool: which columns each of `rows` (B, R) may see."""
        return shown(self._mask(rows, self.key.shape[2]))[:, 0]

    def _mask(self, rows: Tensor, n: int) -> Tensor:
        """What `rows` (B, R) see of the first n columns, (B, 1 or H, R, n), bool or for logits."""
        if self.mask is not None:
            index = rows[:, None, :, None].expand(-1, self.mask.shape[1], -1, self.mask.shape[3])
            return self.mask.expand(len(rows), -1, -1, -1).gather(2, index)[..., :n]
        behind = rows[..., None] - torch.arange(n, device=rows.device)
        seen = (behind >= 0) & self.valid[:, None, :n]
        return (seen if self.window is None else seen & (behind < self.window))[:, None]


def received_within(
    heads: Heads, group: Tensor, most: int | None = None, groups: int | None = None
) -> Tensor:
    """Mean over heads and over the rows of its own group of what each column receives, (B, N).

    group (B, N) int: columns of one number are a group; -1 belongs to none and receives nothing.
    most, groups: columns that the fullest row has in groups, and groups; to find them out stops a
    GPU.
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
    """Mean over heads and over the `real` ones of `rows` (B, R) of what columns get, (B, N)."""
    total = torch.zeros(heads.valid.shape, device=rows.device)
    done = 0
    for some, seen in heads.blocks(rows):
        own = real[:, done : done + some.shape[1]]
        total += (seen.mean(1) * own[..., None]).sum(1)
        done += some.shape[1]
    return total / real.sum(1, keepdim=True).clamp(min=1)


def page_rank(heads: Heads, temperature: float, iters: int, damping: float = 0.0) -> Tensor:
    """Importance (B, N): mass that flows `iters` times along attention from row to column.

    It starts even over valid columns; root of the mean over heads of squares. 0 for padding.
    """
    valid = heads.valid.float()
    even = (valid / valid.sum(1, keepdim=True))[:, None]
    # Mass stays within a head: a few at a time, no map is made twice.
    found = [_flown(few, even, temperature, iters, damping) for few in heads.few_at_a_time()]
    return torch.cat(found, 1).square().mean(1).sqrt() * valid


def _flown(heads: Heads, even: Tensor, temperature: float, iters: int, damping: float) -> Tensor:
    """Mass (B, H, N) behind all rounds, from `even` (B, 1, N)."""
    b, h, n, _ = heads.query.shape
    mass = even.expand(-1, h, -1)
    rows = torch.arange(n, device=even.device).expand(b, -1)
    fits = b * h * n * n <= MAP
    # What is later is not computed: more blocks come nearer to half of the map.
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
