"""One attention call and one MLP call of a decoder layer, as rules see and change them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import Tensor

from foveate.ops.attention import Heads, folded, shown
from foveate.ops.gather import rows_at

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Columns:
    """What columns of a decoder layer stand for; (B, N) unless said otherwise.

    valid: no padding. visual: holds a visual token. item: number of the visual item within the row,
    -1 for text. frame: crop or frame of that item, to which newlines and class tokens count too; -1
    for text. place (B, N, 3): (t, h, w) in the item's grid, -1 for text and special tokens. size:
    slots of the prompt that the tokens of layer 0 stood for. order: rank among the columns that the
    caller gave, padding not counted. words, frames: text tokens and frames of what the caller gave,
    up to and with this one; a picture is one frame. at: rank within the layer, by which kernels
    count what is later. positions (..., B, N): ids that the model would rotate by, (3, B, N) with
    M-RoPE.
    """

    valid: Tensor
    visual: Tensor
    item: Tensor
    frame: Tensor
    place: Tensor
    size: Tensor
    order: Tensor
    words: Tensor
    frames: Tensor
    at: Tensor
    positions: Tensor

    def take(self, index: Tensor) -> Columns:
        """The columns at `index` (B, K)."""
        where = self.positions
        return Columns(
            **{name: getattr(self, name).gather(1, index) for name in _FLAT},
            place=rows_at(self.place, index),
            positions=where.gather(-1, index.expand(*where.shape[:-2], -1, -1)),
        )

    @cached_property
    def counts(self) -> tuple[list[int], list[int]]:
        """Columns of each row that are no padding, and the visual ones of them.

        Read off the device once for all layers that hold the same.
        """
        both = torch.stack([self.valid.sum(1), (self.visual & self.valid).sum(1)])
        lengths, visual = both.tolist()
        return lengths, visual

    @cached_property
    def parted(self) -> tuple[Tensor, Tensor]:
        """Numbers, row by row, of the visual columns that are no padding, and of all others."""
        own = (self.visual & self.valid).flatten()
        order, visual = (~own).long().argsort(stable=True), sum(self.counts[1])
        return order[:visual], order[visual:]

    def but(self, valid: Tensor) -> Columns:
        """The same columns, of which those outside `valid` (B, N) are padding."""
        return replace(self, valid=self.valid & valid)


_FLAT = ("valid", "visual", "item", "frame", "size", "order", "words", "frames", "at")


@dataclass(frozen=True, eq=False)
class Whole:
    """The prompt as the caller gave it, and all that came behind, W columns.

    held (B, W): which of the layer's key columns stands for each, -1 where none does. positions
    (..., B, W): the ids of each. A column that many others merged into is held by many.
    """

    held: Tensor
    positions: Tensor


@dataclass(frozen=True, eq=False)
class Seam:
    """What the engine does for a rule inside one layer; rules call the methods of `AttentionCall`.

    kind: name of the user's attention function. causal: whether it hides later columns by itself
    where it is given no mask. refuse(why): raises for what this kernel can't be told. memo: what
    rules worked out for several layers of one forward pass; gone with it. alone: nobody else sees
    or changes this call, so that a rule may answer it without the kernel. own: facts of all rows
    and columns of the layer, the very objects that the first rule is handed. still: the layer
    rotates nothing, and so does `rotate`. blocks: how `AttentionCall.in_blocks` is computed.
    """

    kind: str
    causal: bool
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor]
    tables: Callable[[Tensor], tuple[Tensor, Tensor]]
    whole: Callable[[], Whole]
    account: Callable[..., None]
    refuse: Callable[[str], None]
    blocks: Callable[..., tuple[Tensor, Tensor]]
    memo: dict = field(default_factory=dict)
    alone: bool = False
    own: tuple[Columns, Columns] | None = None
    still: bool = False


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of a layer's attention. Frozen: rules hand changed copies on.

    query (B, H, q, d), key and value (B, Hkv, K, d): rotated, cache appended, grouped heads not
    repeated. mask: in the kernel's own format, None for none. queries, keys: facts of the q rows
    and the K columns. cos, sin (B, q, r): what the rows are rotated by, or would be where a rule
    leaves them raw. prefill: the prompt runs; otherwise new tokens do. layer: 0-based.
    notes: what this rule wrote at earlier layers and calls of the same prompt. full: without a mask
    every row sees every key, later ones too. softcap, sinks: what the kernel does to logits,
    see `ops.attention.weighed`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    queries: Columns
    keys: Columns
    cos: Tensor
    sin: Tensor
    layer: int
    layers: int
    prefill: bool
    window: int | None
    notes: dict[str, Tensor]
    seam: Seam
    full: bool = False
    softcap: float | None = None
    sinks: Tensor | None = None

    def heads(self) -> Heads:
        """Queries and keys of a call in which rows and columns are the same; for prefill."""
        mask = self.mask if self.mask is not None and self.mask.dim() == 4 else None
        return Heads(
            self.query.detach(),
            self.key.detach(),
            self.scaling,
            self.queries.valid,
            mask,
            self.window,
            self.softcap,
            self.sinks,
        )

    def seen(self) -> Tensor:
        """What each row may see at present, (B or 1, 1 or H, q, K) bool."""
        mask = self.mask
        if mask is not None and mask.dim() == 4:
            return shown(mask)
        visible = self.keys.valid[:, None, :]
        if self.seam.causal and not self.full:
            gap = self.queries.at[:, :, None] - self.keys.at[:, None, :]
            visible = visible & (gap >= 0)
            if self.window is not None:
                visible = visible & (gap < self.window)
        return visible.expand(-1, self.query.shape[2], -1)[:, None]

    def masked(self, visible: Tensor) -> AttentionCall:
        """The same call where rows see what `visible` (B or 1, 1 or H, q, K) bool says.

        Rows that are padding see all, so that no softmax is over nothing.
        """
        visible = visible | ~self.queries.valid[:, None, :, None]
        if "flash" in self.seam.kind or "flex" in self.seam.kind:
            self.seam.refuse("a mask of its own")
        if self.seam.kind == "eager":
            lowest = torch.finfo(self.query.dtype).min
            mask = torch.zeros(visible.shape, dtype=self.query.dtype, device=visible.device)
            return replace(self, mask=mask.masked_fill(~visible, lowest))
        return replace(self, mask=visible)

    def rows(self, index: Tensor, valid: Tensor | None = None) -> AttentionCall:
        """Only the query rows at `index` (B, R); those outside `valid` (B, R) are padding."""
        queries = self.queries.take(index)
        call = replace(
            self,
            query=rows_at(self.query, index),
            queries=queries if valid is None else queries.but(valid),
            cos=rows_at(self.cos, index),
            sin=rows_at(self.sin, index),
        )
        if self.mask is None or self.mask.dim() < 4:
            return call.masked(call.seen())
        seen = self.seen().expand(len(index), -1, -1, -1)
        wide = index[:, None, :, None].expand(-1, seen.shape[1], -1, seen.shape[3])
        return call.masked(seen.gather(2, wide))

    def columns(self, index: Tensor, valid: Tensor | None = None) -> AttentionCall:
        """Only the key columns at `index` (B, R); those outside `valid` (B, R) are padding."""
        keys = self.keys.take(index)
        keys = keys if valid is None else keys.but(valid)
        call = replace(
            self, key=rows_at(self.key, index), value=rows_at(self.value, index), keys=keys
        )
        seen = self.seen().expand(len(index), -1, -1, -1)
        wide = index[:, None, None, :].expand(-1, seen.shape[1], seen.shape[2], -1)
        return call.masked(seen.gather(3, wide) & keys.valid[:, None, None, :])

    def square(self, index: Tensor, valid: Tensor | None = None) -> AttentionCall:
        """Only the columns at ascending `index` (B, R), as rows and as keys; for prefill.

        Those outside `valid` (B, R) are padding. A kernel that hides what is later by itself goes
        on doing so, and FlashAttention takes such a call too.
        """
        flash = "flash" in self.seam.kind
        if not flash and (self.mask is not None or valid is not None):
            return self.rows(index, valid).columns(index, valid)
        queries = keys = self.queries.take(index)
        if self.keys is not self.queries:
            keys = self.keys.take(index)
        if valid is not None:
            queries, keys = queries.but(valid), keys.but(valid)
        padded = self.mask is not None or valid is not None
        return replace(
            self,
            query=rows_at(self.query, index),
            key=rows_at(self.key, index),
            value=rows_at(self.value, index),
            mask=keys.valid.long() if padded else None,
            queries=queries,
            keys=keys,
            cos=rows_at(self.cos, index),
            sin=rows_at(self.sin, index),
        )

    def turned(self, x: Tensor, back: bool = False) -> Tensor:
        """x (B, h, q, d) rotated as the query rows are, or back to where it was before."""
        if not back:
            return self.seam.rotate(x, self.cos, self.sin)
        key = ("back", id(self.cos))
        if key not in self.seam.memo:
            # Some scaled rotations stretch; dividing by the square undoes both.
            stretch = self.cos.square() + self.sin.square()
            self.seam.memo[key] = self.cos, (self.cos / stretch, -self.sin / stretch)
        return self.seam.rotate(x, *self.seam.memo[key][1])

    def rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """Raw x (B, h, M, d) rotated by ids (..., B, M) of any kind."""
        return self.seam.rotate(x, *self.seam.tables(positions))

    @property
    def entire(self) -> bool:
        """Whether all rows of the layer ask all of its columns, in their own order."""
        own = self.seam.own
        return own is None or self.queries is own[0] and self.keys is own[1]

    def whole(self) -> Whole:
        """Which key column stands for each column that the caller gave, and that came behind."""
        return self.seam.whole()

    def once(self, make: Callable[[], T]) -> T:
        """What `make()` gives, asked once for all layers with the same columns, mask and rotation.

        One for each rule: it is told apart by `notes`. Facts carry no gradients: a checkpointed
        layer finds them made when it is computed again.
        """
        alike = (self.notes, self.queries, self.keys, self.mask, self.window)
        key = ("once", self.seam.still, *map(id, alike))
        if key not in self.seam.memo:
            # What is held can't hand its id on to another object.
            with torch.no_grad():
                self.seam.memo[key] = alike, make()
        return self.seam.memo[key][1]

    def in_blocks(
        self,
        proceed: Attend,
        visible: Callable[[AttentionCall], Tensor],
        alike: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention under a rule's own mask, block by block of rows; the mask is never whole.

        Args:
            proceed: what answers the call of one block.
            visible: from a block's call to what its rows see, (B, 1 or H, q, K) bool. Asked once
                for all layers that hold the same columns under the same mask.
            alike: (B, q) int. Rows in succession with one number are one block without a mask,
                which kernels compute faster, where the first and the last of them see the same.
                Other rows have -1.

        Returns the output (B, q, H, d), and the pairs of row and key (B,) that are not computed.
        """
        return self.seam.blocks(self, proceed, visible, alike)

    def products(self, query: Tensor) -> Tensor:
        """Scaled products (B, H, q, K) of a few rows `query` (B, H, q, d) with all keys."""
        rows = folded(query, self.key.shape[1])
        return (rows @ self.key.mT).view(*query.shape[:3], -1) * self.scaling

    def weights(self, logits: Tensor) -> Tensor:
        """Probabilities (B, H, q, K) of a few rows from their logits, what is unseen left out.

        For calls of which nobody else knows (`seam.alone`), in place of the kernel.
        """
        if self.mask is not None or logits.shape[2] > 1:
            logits = logits.masked_fill(~self.seen(), torch.finfo(logits.dtype).min)
        return logits.softmax(-1, dtype=torch.float32).to(self.value.dtype)

    def weighed(self, weights: Tensor) -> Tensor:
        """Output (B, q, H, d): values weighted by (B, H, q, K) of a few rows."""
        out = folded(weights, self.value.shape[1]) @ self.value
        return out.view(*weights.shape[:3], -1).transpose(1, 2)

    def pair_cost(self) -> int:
        """FLOPs of one row with one key over all heads: the product, then the weighted value."""
        return 2 * self.query.shape[1] * (self.query.shape[-1] + self.value.shape[-1])

    def bare_pairs(self) -> Tensor:
        """Pairs of row and key (B,) with which bare prefill is counted."""
        n = self.queries.valid.sum(1)
        return n * (n if self.window is None else n.clamp(max=self.window))

    def account(self, flops: Tensor, kv_bytes: Tensor | None = None) -> None:
        """Put down what this layer does less than bare attention on its columns, (B,) per row.

        flops: a multiply-add as two, of valid columns, every row with every key as bare prefill is
        counted. kv_bytes: of cached keys and values. Negative where a rule does more. Only what
        is put down in prefill counts.
        """
        self.seam.account(flops, kv_bytes)


@dataclass(frozen=True, eq=False)
class MLPCall:
    """One call of a layer's MLP. x (B, N, D): what it is given. columns: facts of these.

    run(x, neurons): the user's own MLP on any (..., D), with its first `neurons` neurons only.
    """

    x: Tensor
    columns: Columns
    layer: int
    prefill: bool
    width: int
    matrices: int
    run: Callable[[Tensor, int | None], Tensor]
    account: Callable[..., None]

    def apply(self, x: Tensor, neurons: int | None = None) -> Tensor:
        """What the MLP makes of x (..., D), with its first `neurons` of `width` neurons."""
        return self.run(x, neurons)

    def cost(self, neurons: int | None = None) -> int:
        """FLOPs of one column."""
        return 2 * self.matrices * self.x.shape[-1] * (self.width if neurons is None else neurons)


Attend = Callable[[AttentionCall], Tensor]
Feed = Callable[[MLPCall], Tensor]


def chained(functions, last):
    """Functions (call, proceed) as one function of the call, each handing on to the next."""
    for function in reversed(functions):
        last = partial(_handed, function, last)
    return last


def _handed(function, proceed, call):
    return function(call, proceed)
