"""Attention with a rule's mask, in blocks of queries and with the keys that a block attends to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from foveate.attention_call import Attend, AttentionCall, Columns
from foveate.ops.gather import rows_at
from foveate.ops.transfer import on_device

# Queries per kernel call. Small blocks compute few masked pairs. On a GPU larger blocks are better,
# because kernel launches cost more.
BLOCK = 128
BLOCK_ON_GPU = 1024
# Blocks with similar masks are joined up to JOINED queries, because kernels are faster on larger
# blocks, if the query-key pairs grow by at most the factor PAIRS.
JOINED, PAIRS = 512, 1.25


@dataclass(frozen=True, eq=False)
class Block:
    """One block of queries, shared by all layers with the same columns.

    Attributes:
        rows: Slice of the queries.
        index: (B, K) int, keys that any of the queries attends to. None for the first K keys.
        queries: Facts of the queries.
        keys: Facts of the keys.
        mask: Mask in the kernel's format. None where every query attends to every key.
        spared: (B,) query-key pairs that a causal kernel would compute and this block does not.
    """

    rows: slice
    index: Tensor | None
    queries: Columns
    keys: Columns
    mask: Tensor | None
    spared: Tensor

    def of(self, call: AttentionCall) -> AttentionCall:
        """The part of a layer's call that this block computes."""
        return replace(
            call,
            query=call.query[:, :, self.rows],
            key=self._kept(call.key),
            value=self._kept(call.value),
            mask=self.mask,
            full=self.mask is None,
            queries=self.queries,
            keys=self.keys,
            cos=call.cos[:, self.rows],
            sin=call.sin[:, self.rows],
        )

    def _kept(self, x: Tensor) -> Tensor:
        if self.index is None:
            return x[:, :, : self.keys.valid.shape[1]]
        return rows_at(x, self.index)


def in_blocks(
    call: AttentionCall,
    proceed: Attend,
    visible: Callable[[AttentionCall], Tensor],
    alike: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention with the mask that `visible` returns, computed block by block.

    Args:
        call: The attention call.
        proceed: Function that computes the call of one block.
        visible: Function from a block's call to its mask (B, 1 or H, q, K) bool. It runs once for
            all layers with the same columns and mask. The full mask is never built.
        alike: (B, q) int. Consecutive queries with the same number form one block without a mask,
            which kernels compute faster, if the first and the last attend to the same keys. -1 for
            other queries.

    Returns:
        The output (B, q, H, d), and the number of query-key pairs (B,) that are not computed.
    """
    blocks = call.once(lambda: list(_cut(call, visible, alike)))
    out = [proceed(block.of(call)) for block in blocks]
    return torch.cat(out, 1), torch.stack([block.spared for block in blocks]).sum(0)


def _cut(
    call: AttentionCall, visible: Callable[[AttentionCall], Tensor], alike: Tensor | None
) -> Iterator[Block]:
    size = BLOCK_ON_GPU if call.query.is_cuda else BLOCK
    spans = list(_spans(call.query.shape[2], alike))
    ends = _ends(call, [span for span, together in spans if together], visible)
    for span, together in spans:
        block = _open(call, span, next(ends)) if together else None
        if block is not None:
            yield block
            continue
        for rows, seen in _joined_blocks(call, span, size, visible):
            yield _masked(call, rows, seen)


def _spans(n: int, alike: Tensor | None) -> Iterator[tuple[slice, bool]]:
    """Slices that cover n queries, and whether all queries of a slice are alike."""
    numbers = [] if alike is None else alike.tolist()
    if any(row != numbers[0] for row in numbers) or not numbers:
        yield slice(0, n), False
        return
    start = at = 0
    for label, run in groupby(numbers[0]):
        count = len(list(run))
        # Short runs are faster in a block with other queries.
        if label >= 0 and count >= BLOCK // 2:
            if start < at:
                yield slice(start, at), False
            start = at + count
            yield slice(at, start), True
        at += count
    if start < n:
        yield slice(start, n), False


@dataclass(frozen=True, eq=False)
class Ends:
    """Masks of the first and the last query of a span, on the CPU.

    Attributes:
        seen: (B, 1 or H, 2, K) bool.
        valid: (B, q) bool, of all queries of the span, as in `Columns`.
        at: (B, q) int, of all queries of the span, as in `Columns`.
    """

    seen: Tensor
    valid: Tensor
    at: Tensor


def _ends(
    call: AttentionCall, spans: list[slice], visible: Callable[[AttentionCall], Tensor]
) -> Iterator[Ends]:
    """The `Ends` of all spans, read from the device in one copy."""
    if not spans:
        return
    b, device = len(call.query), call.query.device
    ends = on_device([row for s in spans for row in (s.start, s.stop - 1)], device)
    seen = visible(call.rows(ends.expand(b, -1))).cpu().unflatten(2, (len(spans), 2))
    valid, at = call.queries.valid.cpu(), call.queries.at.cpu()
    for rows, own in zip(spans, seen.unbind(2), strict=True):
        yield Ends(own, valid[:, rows], at[:, rows])


def _open(call: AttentionCall, rows: slice, ends: Ends) -> Block | None:
    """A block without a mask; None where its queries attend to different keys."""
    b, device, seen = len(call.query), call.query.device, ends.seen
    if bool((seen != seen[:1, :1, :1]).any()) or not bool(ends.valid.all()):
        return None
    index = seen[0, 0, 0].nonzero()[:, 0]
    first = index.equal(torch.arange(len(index)))
    index = on_device(index, device).expand(b, -1)
    steps = torch.arange(rows.start, rows.stop, device=device).expand(b, -1)
    bare = call.keys.valid[:, : int(ends.at.max()) + 1].sum(1)
    spared = steps.shape[1] * (bare - index.shape[1])
    queries, keys = call.queries.take(steps), call.keys.take(index)
    return Block(rows, None if first else index, queries, keys, None, spared)


def _joined_blocks(
    call: AttentionCall, span: slice, size: int, visible: Callable[[AttentionCall], Tensor]
) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of queries with their masks (B, 1 or H, q, K) bool; similar blocks are joined."""
    held: list[Tensor] = []
    begin, pairs, union = span.start, 0, torch.empty(0)
    for start in range(span.start, span.stop, size):
        stop = min(start + size, span.stop)
        part = _rows(call, slice(start, stop))
        seen = visible(part) & part.queries.valid[:, None, :, None]
        used = seen.any(2).any(1)
        both = union | used if held else used
        alone, together = torch.stack([used.sum(), both.sum()]).tolist()
        alone *= stop - start
        if held and (stop - begin > JOINED or (stop - begin) * together > PAIRS * (pairs + alone)):
            yield slice(begin, start), torch.cat(held, 2)
            held, begin, pairs, both = [], start, 0, used
        held.append(seen)
        pairs, union = pairs + alone, both
    yield slice(begin, span.stop), torch.cat(held, 2)


def _rows(call: AttentionCall, rows: slice) -> AttentionCall:
    steps = torch.arange(rows.start, rows.stop, device=call.query.device)
    return call.rows(steps.expand(len(call.query), -1))


def _masked(call: AttentionCall, rows: slice, seen: Tensor) -> Block:
    part = _rows(call, rows)
    real = part.queries.valid
    used = seen.any(2).any(1)
    behind = torch.arange(1, used.shape[1] + 1, device=used.device)
    facts = used.sum(1).max(), (used * behind).amax(), part.queries.at.max()
    most, last, end = torch.stack(facts).tolist()
    most, last = max(1, most), max(1, last)
    part = part.masked(seen)
    # Computing a few unused keys costs less than gathering all the others.
    whole = most > 0.8 * last
    keep = torch.arange(last, device=used.device).expand(len(used), -1)
    if not whole:
        keep = used.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    asked = part.keys.valid.gather(1, keep) if whole else used.gather(1, keep)
    part = part.columns(keep, asked)
    bare = call.keys.valid[:, : end + 1].sum(1)
    spared = real.sum(1) * (bare - asked.sum(1))
    return Block(rows, None if whole else keep, part.queries, part.keys, part.mask, spared)
