"""`AttentionCall` and `MLPCall`: one attention or MLP call of a decoder layer, for rules."""

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
    """Facts about columns (sequence positions) of a decoder layer, each (B, N) unless noted.

    Attributes:
        valid: bool, False at padding.
        visual: bool, True at visual tokens.
        item: int, index of the image or video within the row, -1 for text.
        frame: int, crop or frame of the item, newlines and class tokens included; -1 for text.
        place: (B, N, 3) int, (t, h, w) in the item's grid, -1 for text and special tokens.
        size: float, number of tokens of the full prompt that the column stands for.
        order: int, rank of the column among the columns of the full prompt, without padding.
        words: int, number of text tokens in the full prompt up to and including this column.
        frames: int, number of frames in the full prompt up to and including this column; an image
            counts as one frame.
        at: int, rank of the column within the layer. Kernels use it to tell which columns are
            later.
        positions: (..., B, N) position ids of the model's rotary embedding, (3, B, N) with M-RoPE.
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
        """For each row: columns without padding, and visual columns among them.

        Read from the device once for all layers that share this object.
        """
        both = torch.stack([self.valid.sum(1), (self.visual & self.valid).sum(1)])
        lengths, visual = both.tolist()
        return lengths, visual

    @cached_property
    def parted(self) -> tuple[Tensor, Tensor]:
        """Flat indices of the visual columns and of all other columns; padding counts as other."""
        own = (self.visual & self.valid).flatten()
        order, visual = (~own).long().argsort(stable=True), sum(self.counts[1])
        return order[:visual], order[visual:]

    def but(self, valid: Tensor) -> Columns:
        """The same columns, with those outside `valid` (B, N) marked as padding."""
        return replace(self, valid=self.valid & valid)


_FLAT = ("valid", "visual", "item", "frame", "size", "order", "words", "frames", "at")


def unrecorded(scores: Tensor) -> None:
    """What becomes of scores that the caller did not ask for: nothing."""


@dataclass(frozen=True, eq=False)
class Whole:
    """The full sequence: the prompt as the caller passed it and all tokens after it, W positions.

    Attributes:
        held: (B, W) int, the key column of this layer that contains each position, -1 where none
            does. A merged column contains several positions.
        positions: (..., B, W) position ids of the full sequence.
    """

    held: Tensor
    positions: Tensor


@dataclass(frozen=True, eq=False)
class Seam:
    """Functions and facts of the engine for one layer. Rules use the methods of `AttentionCall`.

    Attributes:
        kind: Name of the model's attention implementation, such as "sdpa".
        causal: Whether the kernel applies a causal mask itself when it gets no mask.
        rotate: Function (x, cos, sin) that applies the rotary embedding.
        tables: Function from position ids to (cos, sin).
        whole: Function that returns the `Whole` sequence of this layer.
        account: Function behind `AttentionCall.account`.
        refuse: Function that raises `UnsupportedCall` for a mask that the kernel does not support.
        blocks: Function behind `AttentionCall.in_blocks`.
        memo: Values that rules share between layers of one forward pass.
        alone: No other part reads or changes this call, so a rule may compute it without the
            kernel.
        own: Facts of all rows and all columns of the layer, the same objects that the first rule
            gets.
        still: The layer has no rotary embedding; `rotate` returns its input.
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
    """One attention call of a decoder layer. Immutable: rules pass changed copies on.

    q counts queries, K counts keys. In decode K includes the KV cache.

    Attributes:
        query: (B, H, q, d), rotated.
        key: (B, Hkv, K, d), rotated; key heads are not repeated.
        value: (B, Hkv, K, d).
        mask: Attention mask in the format of the kernel, or None.
        scaling: Factor of the products.
        queries: Facts of the q queries.
        keys: Facts of the K keys.
        cos: (B, q, r) rotary table of the queries, also where a rule leaves them unrotated.
        sin: (B, q, r) likewise.
        layer: 0-based decoder layer.
        layers: Number of decoder layers.
        prefill: True in prefill, False in decode.
        window: Length of the sliding window, or None.
        notes: Values that this rule stored in earlier layers and calls of the same prompt.
        seam: Functions of the engine.
        full: Without a mask every query attends to every key, later keys included.
        softcap: Bound of the logits, see `ops.attention.weighed`.
        sinks: (H,) attention sink logits, see `ops.attention.weighed`.
        record: Function that takes scores (B, q) of the queries' positions. A rule that ranks
            tokens calls it in prefill; the scores are kept if the caller asked for them.
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
    record: Callable[[Tensor], None] = unrecorded

    def heads(self) -> Heads:
        """Queries and keys of a prefill call, in which queries and keys are the same columns."""
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
        """Which keys each query attends to without further rules, (B or 1, 1 or H, q, K) bool."""
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
        """The same call with the mask `visible` (B or 1, 1 or H, q, K) bool.

        Padding queries attend to all keys, so that no softmax runs over an empty set.
        """
        visible = visible | ~self.queries.valid[:, None, :, None]
        if "flash" in self.seam.kind or "flex" in self.seam.kind:
            self.seam.refuse("its own attention mask")
        if self.seam.kind == "eager":
            lowest = torch.finfo(self.query.dtype).min
            mask = torch.zeros(visible.shape, dtype=self.query.dtype, device=visible.device)
            return replace(self, mask=mask.masked_fill(~visible, lowest))
        return replace(self, mask=visible)

    def rows(self, index: Tensor, valid: Tensor | None = None) -> AttentionCall:
        """The call with only the queries at `index` (B, R).

        Those outside `valid` (B, R) are padding.
        """
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
        """The call with only the keys at `index` (B, R).

        Those outside `valid` (B, R) are padding.
        """
        keys = self.keys.take(index)
        keys = keys if valid is None else keys.but(valid)
        call = replace(
            self, key=rows_at(self.key, index), value=rows_at(self.value, index), keys=keys
        )
        seen = self.seen().expand(len(index), -1, -1, -1)
        wide = index[:, None, None, :].expand(-1, seen.shape[1], seen.shape[2], -1)
        return call.masked(seen.gather(3, wide) & keys.valid[:, None, None, :])

    def square(self, index: Tensor, valid: Tensor | None = None) -> AttentionCall:
        """The prefill call with only the columns at ascending `index` (B, R), as queries and keys.

        Columns outside `valid` (B, R) are padding. The mask stays causal without being materialised
        where the kernel is causal, so FlashAttention supports the result.
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
        """x (B, h, q, d) rotated by the positions of the queries, or with `back` rotated back."""
        if not back:
            return self.seam.rotate(x, self.cos, self.sin)
        key = ("back", id(self.cos))
        if key not in self.seam.memo:
            # Some scaled rotary embeddings also stretch; dividing by the square undoes both.
            stretch = self.cos.square() + self.sin.square()
            self.seam.memo[key] = self.cos, (self.cos / stretch, -self.sin / stretch)
        return self.seam.rotate(x, *self.seam.memo[key][1])

    def rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """Unrotated x (B, h, M, d) rotated by position ids (..., B, M)."""
        return self.seam.rotate(x, *self.seam.tables(positions))

    @property
    def entire(self) -> bool:
        """Whether the call has all queries and all keys of the layer, in their original order."""
        own = self.seam.own
        return own is None or self.queries is own[0] and self.keys is own[1]

    def whole(self) -> Whole:
        """The full sequence, and which key column of this layer contains each of its positions."""
        return self.seam.whole()

    def once(self, make: Callable[[], T]) -> T:
        """The result of `make()`, shared by all layers with the same columns, mask and rotation.

        Each rule has its own results, told apart by `notes`. They carry no gradients: a
        checkpointed layer reuses them when it is computed again.
        """
        alike = (self.notes, self.queries, self.keys, self.mask, self.window)
        key = ("once", self.seam.still, *map(id, alike))
        if key not in self.seam.memo:
            # The memo keeps the objects alive, so that no other object can get their ids.
            with torch.no_grad():
                self.seam.memo[key] = alike, make()
        return self.seam.memo[key][1]

    def in_blocks(
        self,
        proceed: Attend,
        visible: Callable[[AttentionCall], Tensor],
        alike: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention under a rule's mask, in blocks of queries; the full mask is never built.

        Args:
            proceed: Function that computes the call of one block.
            visible: Function from a block's call to the mask (B, 1 or H, q, K) bool of its queries.
                It runs once for all layers with the same columns and the same mask.
            alike: (B, q) int. Consecutive queries with the same number form one block without a
                mask, which kernels compute faster, if the first and the last of them attend to the
                same keys. -1 for other queries.

        Returns:
            The output (B, q, H, d), and the number of query-key pairs (B,) that are not computed.
        """
        return self.seam.blocks(self, proceed, visible, alike)

    def products(self, query: Tensor) -> Tensor:
        """Scaled products (B, H, q, K) of a few queries `query` (B, H, q, d) with all keys."""
        rows = folded(query, self.key.shape[1])
        return (rows @ self.key.mT).view(*query.shape[:3], -1) * self.scaling

    def weights(self, logits: Tensor) -> Tensor:
        """Attention probabilities (B, H, q, K) of a few queries from their logits, after the mask.

        Only for calls that no other part reads or changes (`seam.alone`), where it replaces the
        kernel.
        """
        if self.mask is not None or logits.shape[2] > 1:
            logits = logits.masked_fill(~self.seen(), torch.finfo(logits.dtype).min)
        return logits.softmax(-1, dtype=torch.float32).to(self.value.dtype)

    def weighed(self, weights: Tensor) -> Tensor:
        """Output (B, q, H, d): values weighted by the probabilities (B, H, q, K) of some rows."""
        out = folded(weights, self.value.shape[1]) @ self.value
        return out.view(*weights.shape[:3], -1).transpose(1, 2)

    def pair_cost(self) -> int:
        """FLOPs of one query-key pair over all heads: the product and the weighted value."""
        return 2 * self.query.shape[1] * (self.query.shape[-1] + self.value.shape[-1])

    def bare_pairs(self) -> Tensor:
        """Query-key pairs (B,) that the unchanged prefill counts."""
        n = self.queries.valid.sum(1)
        return n * (n if self.window is None else n.clamp(max=self.window))

    def account(self, flops: Tensor, kv_bytes: Tensor | None = None) -> None:
        """Report what this layer saves compared to the unchanged attention, per row.

        Only values from prefill count. Negative values are additional cost.

        Args:
            flops: (B,) FLOPs; a multiply-add counts as two. Count valid columns only, and every
                query with every key, as the unchanged prefill is counted.
            kv_bytes: (B,) bytes of cached keys and values.
        """
        self.seam.account(flops, kv_bytes)


@dataclass(frozen=True, eq=False)
class MLPCall:
    """One call of a decoder layer's MLP.

    Attributes:
        x: (B, N, D) input.
        columns: Facts of the columns of x.
        layer: 0-based decoder layer.
        prefill: True in prefill, False in decode.
        width: Number of hidden neurons.
        matrices: Number of weight matrices, 3 for gated MLPs.
        run: Function (x, neurons) that runs the layer's MLP on any (..., D) with its first
            `neurons` hidden neurons; None for all of them.
        account: Function that reports saved FLOPs, see `AttentionCall.account`.
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
        """The MLP's output for x (..., D), computed with its first `neurons` of `width` neurons."""
        return self.run(x, neurons)

    def cost(self, neurons: int | None = None) -> int:
        """FLOPs of one column with `neurons` neurons; None for all."""
        return 2 * self.matrices * self.x.shape[-1] * (self.width if neurons is None else neurons)


Attend = Callable[[AttentionCall], Tensor]
Feed = Callable[[MLPCall], Tensor]


def chained(functions, last):
    """Nest functions (call, proceed) into one function of the call; each calls the next one."""
    for function in reversed(functions):
        last = partial(_handed, function, last)
    return last


def _handed(function, proceed, call):
    return function(call, proceed)
