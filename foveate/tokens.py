"""`VisualTokens`: the visual tokens of a batch of items, with a record of how they were reduced."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from foveate.ops.gather import rows_at, rows_summed
from foveate.ops.transfer import on_device

T = TypeVar("T")


@dataclass(frozen=True)
class Grid:
    """Layout of one image or video, known before any feature is computed; `budget(grid)` reads it.

    Attributes:
        t: Temporal steps.
        h: Rows of tokens. For a tiled image: of all its tiles together.
        w: Columns of tokens. For a tiled image: of all its tiles together.
        views: Number of patch tokens of each crop or frame, in the order of their ids. Empty for
            one view.
        special: Number of tokens that stand for no patch, such as newlines and class tokens.
    """

    t: int
    h: int
    w: int
    views: tuple[int, ...] = ()
    special: int = 0

    @property
    def patches(self) -> int:
        """Number of tokens that stand for patches."""
        return sum(self.views) if self.views else self.t * self.h * self.w

    @property
    def n(self) -> int:
        """Number of tokens of the item, special tokens included."""
        return self.patches + self.special


@dataclass(frozen=True)
class VisualTokens:
    """Tokens of B visual items with the same layout. Immutable: every change returns a new object.

    The full layout is the token sequence of an item before any reduction. A slot is a position in
    it.

    Attributes:
        features: (B, N, D), one vector per token, in the order in which the LLM reads them.
        position: (B, N, 3) int, (t, h, w) in the item's grid, -1 for special tokens.
        size: (B, N) float, how many slots of the full layout the token stands for.
        special: (B, N) bool, True for newlines and class tokens, which never count as patches.
        view: (B, N) int, the crop or frame that the token came from, -1 for special tokens.
        index: (B, N) int, the token's slot in the full layout, -1 for an added vector.
        assign: (B, S) int, for every slot of the full layout the token that contains it, -1 if
            dropped.
        grid: The full layout's grid.
        layout: The layout of these tokens. None once a token was dropped, merged or added.
    """

    features: Tensor
    position: Tensor
    size: Tensor
    special: Tensor
    view: Tensor
    index: Tensor
    assign: Tensor
    grid: Grid = field(compare=False)
    layout: Layout | None = field(default=None, compare=False)

    @property
    def n(self) -> int:
        """Number of tokens per item, N."""
        return self.features.shape[1]

    @property
    def patch(self) -> Tensor:
        """(B, N) bool: tokens that stand for patches."""
        return ~self.special

    def take(self, index: Tensor) -> VisualTokens:
        """Keep the tokens at `index` (B, K) in that order, and drop the others."""
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
            layout=None,
            assign=moved.gather(1, self.assign.masked_fill(self.assign < 0, self.n)),
        )

    def merge(
        self,
        assign: Tensor,
        count: int,
        features: Tensor | None = None,
        at: Tensor | None = None,
    ) -> VisualTokens:
        """Merge tokens.

        The size of a new token is the sum of its members' sizes.

        Args:
            assign: (B, N) int, the new token that each token merges into, -1 to drop it.
            count: Number of new tokens.
            features: (B, count, D) the new vectors. None: the mean of the members, weighted by
                size.
            at: (B, count) int, the member whose slot and position each new token takes. None: the
                first.
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
            layout=None,
        )

    def extent(self) -> Grid:
        """Grid of these tokens; of the first item where B > 1."""
        if self.n == self.grid.n:
            return self.grid
        view = self.view[0][self.view[0] >= 0]
        # One view without any patch where all tokens are special.
        views = tuple(torch.bincount(view).tolist()) or (0,)
        return Grid(1, 1, self.n, views, self.n - sum(views))

    def by_view(self) -> list[Tensor]:
        """Ascending indices (n_v,) of the patches of each view; of the first item where B > 1."""
        if self.layout is not None:
            return self.layout.members(self.features.device)
        grid = self.extent()
        order = self.view[0].argsort(stable=True)
        return list(order[grid.special :].split(list(grid.views or (grid.patches,))))

    def on_host(self) -> tuple[Tensor, list[Tensor]]:
        """Positions (N, 3) of the first item and `by_view`, on the CPU."""
        if self.layout is not None:
            host = torch.device("cpu")
            return self.layout.position, self.layout.members(host)
        return self.position[0].cpu(), [own.cpu() for own in self.by_view()]

    def row(self, b: int) -> VisualTokens:
        """Item b alone, with B = 1."""
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
        """Reduce values per slot (B, S, ...) in the same way as the tokens, to (B, N, ...).

        A merged token gets the mean over its slots. A token without slots gets zeros.
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
    """Positions of the tokens of one item, and the vision encoder outputs they are made of.

    Attributes:
        position: (N, 3) int, as in `VisualTokens`.
        view: (N,) int, as in `VisualTokens`.
        special: (N,) bool, as in `VisualTokens`.
        rows: (N, k) int, the vision encoder's output rows that are averaged into each token. They
            count from the item's first row, without class tokens, one view after another. -1 where
            a token has fewer than k rows.
        weights: (N, k) float, weight of each row. None weighs the rows of a token equally.
    """

    position: Tensor
    view: Tensor
    special: Tensor
    rows: Tensor
    weights: Tensor | None = None

    @property
    def n(self) -> int:
        """Number of tokens of the item."""
        return self.position.shape[0]

    @cached_property
    def grid(self) -> Grid:
        """The item's grid."""
        patches = ~self.special
        t, h, w = (self.position[patches].amax(0) + 1).tolist()
        views = tuple(torch.bincount(self.view[patches]).tolist())
        return Grid(t, h, w, views, int(self.special.sum()))

    @cached_property
    def frame(self) -> Tensor:
        """Crop or frame (N,) of each token, special tokens included.

        A special token belongs to the crop or frame before it, or, where the item begins with a
        special token, to the one after it.
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
        """Temporal step (N,) of each token.

        A special token belongs to the next patch, or to the last patch where none follows.
        """
        steps = torch.arange(self.n).masked_fill(self.special, self.n)
        behind = steps.flip(0).cummin(0).values.flip(0)
        last = int((~self.special).nonzero()[-1])
        return self.position[behind.clamp(max=last), 0]

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make()`, cached under `key`. A layout never changes."""
        memo = self.__dict__.setdefault("_memo", {})
        if key not in memo:
            # The cached tensors are also used by calls that need gradients.
            with torch.inference_mode(False):
                memo[key] = make()
        return memo[key]

    def __getstate__(self) -> dict:
        """State without cached tensors, which may be on a device that the reader does not have."""
        return {name: value for name, value in self.__dict__.items() if name != "_memo"}

    def on(self, device: torch.device) -> Layout:
        """The same layout on `device`, copied there once."""
        if self.position.device == device:
            return self
        parts = (self.position, self.view, self.special, self.rows, self.weights)
        return self.once(
            device, lambda: Layout(*(None if x is None else on_device(x, device) for x in parts))
        )

    def members(self, device: torch.device) -> list[Tensor]:
        """Ascending slots (n_v,) of the patches of each view, on `device`."""

        def made() -> list[Tensor]:
            # Special tokens, of view -1, come first.
            order = self.view.argsort(stable=True)[self.grid.special :]
            views = order.split(list(self.grid.views or (self.grid.patches,)))
            return [on_device(own, device) for own in views]

        return self.once(("members", device), made)

    def pool(self, x: Tensor) -> Tensor:
        """Pool values per encoder row (R, ...) to values per token (N, ...) like the projector.

        Row 0 of x is the item's first row. Rows after the item's last row are not read.
        """
        rows, share = self.once(("pool", x.device), lambda: self._shares(x.device))
        if share is None:
            return x[: self.n] if rows is None else x[rows]
        picked = x[rows]
        share = share.to(x.dtype).reshape(*share.shape, *([1] * (picked.dim() - 2)))
        return (picked * share).sum(1)

    def _shares(self, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Encoder rows (N, k) of the tokens and their weights; None for weights that are all 1.

        The rows are None as well where token i is row i.
        """
        held = self.rows >= 0
        if self.rows.shape[1] == 1 and bool(held.all()):
            rows = self.rows[:, 0]
            in_order = torch.equal(rows, torch.arange(self.n))
            return None if in_order else on_device(rows, device), None
        if self.weights is None:
            share = held.float() / held.sum(1, keepdim=True).clamp(min=1)
        else:
            share = self.weights * held
        return on_device(self.rows.clamp(min=0), device), on_device(share, device)

    def select(self, index: Tensor) -> Layout:
        """The layout of the tokens at `index` (K,)."""
        weights = None if self.weights is None else self.weights[index]
        return Layout(
            self.position[index], self.view[index], self.special[index], self.rows[index], weights
        )

    def tokens(self, features: Tensor) -> VisualTokens:
        """`VisualTokens` of B items with this layout, from their features (B, N, D)."""
        b, n, _ = features.shape
        device = features.device
        slots = torch.arange(n, device=device).expand(b, n)
        own = self.on(device)
        return VisualTokens(
            features=features,
            position=own.position.expand(b, n, 3),
            size=torch.ones(b, n, device=device),
            special=own.special.expand(b, n),
            view=own.view.expand(b, n),
            index=slots,
            assign=slots,
            grid=self.grid,
            layout=self,
        )
