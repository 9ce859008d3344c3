"""`VisualTokens`: what flows from the vision tower to the language model, with its own history."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from foveate.ops.gather import rows_at, rows_summed


@dataclass(frozen=True)
class Grid:
    """Extent of one visual item before any feature exists: what `budget(grid)` may read.

    t, h, w: temporal steps, rows and columns of its tokens (a tiled picture counts its stitched
    tiles in h and w). views: patch tokens of each crop or frame, in the order of their ids.
    special: tokens that stand for no patch (newlines, class tokens).
    """

    t: int
    h: int
    w: int
    views: tuple[int, ...] = ()
    special: int = 0

    @property
    def patches(self) -> int:
        """Tokens that stand for patches."""
        return sum(self.views) if self.views else self.t * self.h * self.w

    @property
    def n(self) -> int:
        """All tokens of the item."""
        return self.patches + self.special


@dataclass(frozen=True)
class VisualTokens:
    """Tokens of B equally laid out visual items. Frozen: every change makes a new object.

    features (B, N, D): one vector per token, in the order the language model will read.
    position (B, N, 3) int: (t, h, w) in the item's own grid; -1 for special tokens.
    size (B, N) float: how many tokens of the full layout each one stands for.
    special (B, N) bool: newlines, class tokens: never counted as patches.
    view (B, N) int: crop or frame that each token came from; -1 for special tokens.
    index (B, N) int: the token's slot in the full layout, -1 for a vector that had none.
    assign (B, S) int: for every slot of the full layout the token that now holds it, -1 if dropped.
    grid: the full layout's extent.
    """

    features: Tensor
    position: Tensor
    size: Tensor
    special: Tensor
    view: Tensor
    index: Tensor
    assign: Tensor
    grid: Grid = field(compare=False)

    @property
    def n(self) -> int:
        """Tokens per item, N."""
        return self.features.shape[1]

    @property
    def patch(self) -> Tensor:
        """(B, N) bool: tokens that stand for patches."""
        return ~self.special

    def take(self, index: Tensor) -> VisualTokens:
        """Keep the tokens at `index` (B, K), in that order; the others are dropped."""
        moved = torch.full((self.features.shape[0], self.n + 1), -1, device=index.device)
        new = torch.arange(index.shape[1], device=index.device).expand_as(index)
        moved.scatter_(1, index, new)
        return replace(
            self,
            features=rows_at(self.features, index),
            position=rows_at(self.position, index),
            size=self.size.gather(1, index),
            special=self.special.gather(1, index),
            view=self.view.gather(1, index),
            index=self.index.gather(1, index),
            assign=moved.gather(1, self.assign.masked_fill(self.assign < 0, self.n)),
        )

    def merge(
        self,
        assign: Tensor,
        count: int,
        features: Tensor | None = None,
        at: Tensor | None = None,
    ) -> VisualTokens:
        """Merge token i into new token `assign[b, i]` (-1 drops it); there are `count` new tokens.

        A new token's size is the sum of its members' sizes.
        features (B, count, D): the new vectors; by default the size-weighted mean of the members.
        at (B, count): the member in whose slot each new token stands; by default the first.
        """
        b, n = assign.shape
        held = assign >= 0
        slot = assign.masked_fill(~held, count)
        steps = torch.arange(n, device=assign.device).expand(b, n)
        if at is None:
            first = steps.new_full((b, count + 1), n)
            at = first.scatter_reduce_(1, slot, steps, "amin")[:, :count]
        size = self.size.new_zeros(b, count + 1).scatter_add_(1, slot, self.size)[:, :count]
        if features is None:
            weighted = self.features * self.size[..., None].to(self.features.dtype)
            total = rows_summed(weighted, assign, count)
            features = total / size[..., None].to(total.dtype)
        padded = torch.cat([slot, slot.new_full((b, 1), count)], 1)
        moved = padded.gather(1, self.assign.masked_fill(self.assign < 0, n))
        kept = self.take(at)
        return replace(
            kept, features=features, size=size, assign=moved.masked_fill(moved == count, -1)
        )

    def add(self, features: Tensor) -> VisualTokens:
        """Append vectors (B, M, D) that stand for no single patch, such as a class token."""
        b, m, _ = features.shape
        none = self.index.new_full((b, m), -1)
        return replace(
            self,
            features=torch.cat([self.features, features.to(self.features.dtype)], 1),
            position=torch.cat([self.position, none[..., None].expand(-1, -1, 3)], 1),
            size=torch.cat([self.size, self.size.new_ones(b, m)], 1),
            special=torch.cat([self.special, none < 0], 1),
            view=torch.cat([self.view, none], 1),
            index=torch.cat([self.index, none], 1),
        )

    def extent(self) -> Grid:
        """What `budget(grid)` may know of these tokens, of the first item where B > 1."""
        if self.n == self.grid.n:
            return self.grid
        view = self.view[0][self.view[0] >= 0]
        views = tuple(torch.bincount(view).tolist())
        return Grid(1, 1, self.n, views, self.n - sum(views))

    def by_view(self) -> list[Tensor]:
        """Ascending indices (n_v,) of the patches of every view, of the first item where B > 1."""
        grid = self.extent()
        order = self.view[0].argsort(stable=True)
        return list(order[grid.special :].split(list(grid.views or (grid.patches,))))

    def row(self, b: int) -> VisualTokens:
        """Item b alone, as B = 1."""
        one = slice(b, b + 1)
        return replace(
            self,
            features=self.features[one],
            position=self.position[one],
            size=self.size[one],
            special=self.special[one],
            view=self.view[one],
            index=self.index[one],
            assign=self.assign[one],
        )

    def carry(self, x: Tensor) -> Tensor:
        """Values per slot (B, S, ...) reduced as the tokens were, (B, N, ...).

        A merged token carries the mean over its slots, a token without slots zeros.
        """
        if self.assign is self.index:
            return x
        b, slots = self.assign.shape
        flat = x.reshape(b, slots, -1)
        held = self.assign >= 0
        total = rows_summed(flat, self.assign, self.n)
        count = rows_summed(held[..., None].to(flat.dtype), self.assign, self.n)
        return (total / count.clamp(min=1)).reshape(b, self.n, *x.shape[2:])


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of one visual item lie and which rows of the vision tower made them.

    position (N, 3), view (N,), special (N,): as in `VisualTokens`.
    rows (N, k) int: rows of the tower's patch output that were averaged into each token, counted
    from the item's first row (class rows left out, views one after another), -1 where fewer than k.
    weights (N, k) float: their shares; None weighs the rows of a token equally.
    """

    position: Tensor
    view: Tensor
    special: Tensor
    rows: Tensor
    weights: Tensor | None = None

    @property
    def n(self) -> int:
        """Tokens of the item."""
        return self.position.shape[0]

    @cached_property
    def grid(self) -> Grid:
        """The item's extent."""
        patches = ~self.special
        t, h, w = (self.position[patches].amax(0) + 1).tolist()
        views = tuple(torch.bincount(self.view[patches]).tolist())
        return Grid(t, h, w, views, int(self.special.sum()))

    @cached_property
    def frame(self) -> Tensor:
        """Crop or frame (N,) that each token counts to; special tokens to the one they close.

        Where the item begins with a special token they count to the one they open.
        """
        if not bool(self.special.any()):
            return self.view
        opens = bool(self.special[0])
        special, view = (x.flip(0) if opens else x for x in (self.special, self.view))
        steps = torch.arange(self.n)
        last = steps.masked_fill(special, 0).cummax(0).values
        frame = view[last]
        return frame.flip(0) if opens else frame

    @cached_property
    def step(self) -> Tensor:
        """Temporal step (N,) of each token; a special token belongs to the patch behind it.

        Special tokens behind the last patch belong to that one.
        """
        steps = torch.arange(self.n).masked_fill(self.special, self.n)
        behind = steps.flip(0).cummin(0).values.flip(0)
        last = int((~self.special).nonzero()[-1])
        return self.position[behind.clamp(max=last), 0]

    def pool(self, x: Tensor) -> Tensor:
        """Values per tower row (R, ...) to values per token (N, ...), as the projector pools them.

        Row 0 of x is the item's first tower row; rows behind the item's last one are never read.
        """
        rows = self.rows.to(x.device)
        held = rows >= 0
        if self.weights is None:
            share = held.float() / held.sum(1, keepdim=True).clamp(min=1)
        else:
            share = self.weights.to(x.device) * held
        if rows.shape[1] == 1 and bool((self.rows >= 0).all()):
            return x[rows[:, 0]]
        picked = x[rows.clamp(min=0)]
        share = share.to(x.dtype).reshape(*share.shape, *([1] * (picked.dim() - 2)))
        return (picked * share).sum(1)

    def select(self, index: Tensor) -> Layout:
        """The layout of the tokens at `index` (K,) only."""
        weights = None if self.weights is None else self.weights[index]
        return Layout(
            self.position[index], self.view[index], self.special[index], self.rows[index], weights
        )

    def tokens(self, features: Tensor) -> VisualTokens:
        """`VisualTokens` of B items of this layout from their features (B, N, D)."""
        b, n, _ = features.shape
        device = features.device
        slots = torch.arange(n, device=device).expand(b, n)
        return VisualTokens(
            features=features,
            position=self.position.to(device).expand(b, n, 3),
            size=torch.ones(b, n, device=device),
            special=self.special.to(device).expand(b, n),
            view=self.view.to(device).expand(b, n),
            index=slots,
            assign=slots,
            grid=self.grid,
        )
