"""What one `get_*_features` call produced, and the one place where it is reduced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from foveate.contract_checks import check_reduce
from foveate.engine.clock import Clock
from foveate.engine.tower.fusing import held_to, numbered
from foveate.errors import BudgetError
from foveate.ops.transfer import on_device
from foveate.parts import Part, TokensPart, counted, merged_grid
from foveate.signals import (
    ClassState,
    Need,
    ProjectorInput,
    Signals,
    TextEmbeddings,
    VisionAttention,
    VisionKeys,
)
from foveate.tokens import Grid, Layout, VisualTokens


@dataclass
class Item:
    """One visual item: its slots in the prompt, and what the encoder made of it.

    layout: the slots. encoded: the layout of the features, another one where the encoder saw a
    smaller picture. row: its first tower row. features (N, D). planes: DeepStack features (N, D).
    clusters (N,): number of the merged tower row behind each slot, None without encoder merging.
    shares: tokens of each crop or frame that leave the encoder, None where nobody knows beforehand.
    whole: patches of a crop or frame in the encoder. left: those that leave it, None where crops
    and frames differ.
    spread (S,): encoded token nearest to each slot, None where slots and tokens are the same.
    """

    layout: Layout
    encoded: Layout
    row: int
    features: Tensor
    planes: list[Tensor] = field(default_factory=list)
    clusters: Tensor | None = None
    spread: Tensor | None = None
    shares: tuple[int, ...] | None = None
    whole: int = 0
    left: int | None = None

    def over_slots(self, x: Tensor) -> Tensor:
        """Values per encoded token (N, ...) as values per slot (S, ...)."""
        return x if self.spread is None else x[self.spread]

    def start(self) -> VisualTokens:
        """Tokens of an item that was merged inside the tower, copies fused, in order of place."""
        tokens = self.encoded.tokens(self.features[None])
        clusters, view = self.clusters, self.encoded.view
        if self.shares is not None:
            clusters = held_to(self.shares, clusters, self.features, view, self.whole)
        cluster, count = numbered(clusters), self._count()
        if count is None:
            count = int(cluster.max()) + 1
        slots = torch.arange(len(cluster), device=cluster.device)
        place = torch.zeros(count, device=cluster.device).scatter_reduce(
            0, cluster, slots.float(), "mean", include_self=False
        )
        assign = place.argsort().argsort()[cluster]
        features = None
        if clusters is self.clusters:
            # All copies are the same: their mean would only round.
            first = slots.new_full((count,), len(slots)).scatter_reduce(0, assign, slots, "amin")
            features = self.features[first][None]
        if self.encoded is not self.layout:
            tokens = _onto(tokens, self.layout)
        return tokens.merge(assign[None], count, features)

    def _count(self) -> int | None:
        """Tokens that left the encoder, special ones included, None where the device knows."""
        grid = self.encoded.grid
        shares = self.shares or (None,) * len(grid.views)
        # A crop that a family cut padding off has its share, or nobody knows.
        held = [
            0 if not n else self.left if n == self.whole else share
            for n, share in zip(grid.views, shares, strict=True)
        ]
        return None if None in held else sum(held) + grid.special

    @property
    def entered(self) -> Grid:
        """What is known beforehand of the tokens that leave the encoder."""
        grid, n = self.layout.grid, self.encoded.n
        grid = grid if n == grid.n else Grid(1, 1, n)
        merged = self.clusters is not None and self.shares is not None
        return merged_grid(self.shares, grid) if merged else grid


def _encoded_otherwise(items: list[Item]) -> bool:
    """Whether the encoder made something else of an item than the model alone would have."""
    return any(i.clusters is not None or i.encoded is not i.layout for i in items)


class Record:
    """Items of one modality with the signals that were recorded while they were encoded.

    changed: whether any item enters the language model otherwise than the encoder made it.
    tower: per crop or frame its patches, and the tokens that ran through each block of the tower.
    made: the parts inside the encoder that it was made under, and what was recorded.
    clock: what measured the time that encoding took.
    """

    def __init__(
        self,
        modality: str,
        items: list[Item],
        rows: dict[Need, Tensor],
        class_rows: Tensor | None,
        project: Callable[[Tensor], Tensor] | None,
        tower: list[tuple[int, list[int]]],
        made: tuple[tuple[Part, ...], frozenset[Need]],
    ):
        self.modality = modality
        self.made = made
        self.clock: Clock | None = None
        self.items = items
        self._rows = rows
        self._class_rows = class_rows
        self._project = project
        self.tower = tower
        self._reduced: tuple[list[TokensPart], list[VisualTokens], bool] | None = None
        self.changed = _encoded_otherwise(items)

    def reduce(
        self, parts: list[TokensPart], text: Callable[[int, bool], Tensor], agnostic: bool
    ) -> list[VisualTokens]:
        """Run the tokens stage; one `VisualTokens` with B = 1 per item.

        text(i, paired): embeddings (T, D) of the text of item i's sample, or of what is paired with
        it; asked for only when a part needs it.
        Results of prompt-agnostic parts are kept, so that a call without cache reduces once.
        """
        if self._reduced is not None and self._reduced[0] is parts:
            _, left, self.changed = self._reduced
            return left
        self.changed = _encoded_otherwise(self.items)
        groups: dict[tuple, list[int]] = defaultdict(list)
        worded = any(isinstance(n, TextEmbeddings) for p in parts for n in p.needs)
        for i, item in enumerate(self.items):
            alone = i if worded or item.clusters is not None else -1
            groups[id(item.layout), id(item.encoded), alone].append(i)
        done: dict[int, VisualTokens] = {}
        for members in groups.values():
            tokens = self._start(members)
            grid = self.items[members[0]].entered
            if grid.n != tokens.n:
                # Merged by thresholds, or by a part that doesn't say how far.
                grid = Grid(1, 1, tokens.n)
            for part in parts:
                keep = counted(part, grid)
                if keep == tokens.n:
                    continue
                if tokens.n != tokens.grid.n and getattr(part, "drops_special", False):
                    _check_patches(part, tokens, keep)
                grid = part.left(grid, keep)
                signals = self._signals(part.needs, members, tokens, text)
                self.changed = True
                tokens = check_reduce(part, part.reduce(tokens, signals, keep), tokens, keep)
            for row, i in enumerate(members):
                done[i] = tokens.row(row)
        left = [done[i] for i in range(len(self.items))]
        if agnostic and not worded:
            self._reduced = parts, left, self.changed
        return left

    def _start(self, members: list[int]) -> VisualTokens:
        first = self.items[members[0]]
        if first.clusters is not None:
            return first.start()
        tokens = first.encoded.tokens(torch.stack([self.items[i].features for i in members]))
        if first.encoded is first.layout:
            return tokens
        return _onto(tokens, first.layout)

    def repeats(self, output: Any) -> int:
        """How often the features of `output` were repeated since, as beams and samples do."""
        rows = sum(f.numel() // f.shape[-1] for f in output.pooler_output)
        return rows // sum(item.layout.n for item in self.items)

    def fill(self, output: Any) -> None:
        """Give every slot of a smaller picture features, so that the prompt can be counted by them.

        `generate` finds out by their number which features belong to which sample.
        """
        for item in self.items:
            tokens = _onto(item.encoded.tokens(item.features[None]), item.layout)
            item.spread = tokens.assign[0].clamp(min=0)
        full = [item.over_slots(item.features) for item in self.items]
        stacked = isinstance(output.pooler_output, Tensor)
        shape = len(output.pooler_output), -1, full[0].shape[-1]
        output.pooler_output = torch.cat(full).view(shape) if stacked else full
        if self.items[0].planes:
            output.deepstack_features = [
                [item.over_slots(item.planes[j]) for item in self.items]
                for j in range(len(self.items[0].planes))
            ]

    def planes(self, i: int, tokens: VisualTokens) -> list[Tensor]:
        """DeepStack features of item i reduced exactly as its tokens were, (K, D) each."""
        item = self.items[i]
        return [tokens.carry(item.over_slots(plane)[None])[0] for plane in item.planes]

    def attention(self, i: int, need: VisionAttention, tokens: VisualTokens) -> Tensor:
        """A recorded signal (..., N) of item i, reduced as its tokens were."""
        return self._signals((need,), [i], tokens, None)[need][0]

    def _signals(self, needs, members, tokens: VisualTokens, text) -> Signals:
        values: dict[Need, Tensor | None] = {}
        for need in needs:
            if isinstance(need, TextEmbeddings):
                values[need] = text(members[0], need.paired)[None]
            elif isinstance(need, ClassState):
                values[need] = self._classes(members)
            elif isinstance(need, ProjectorInput) and need not in self._rows:
                values[need] = tokens.features
            else:
                full = torch.stack(
                    [
                        item.over_slots(item.encoded.pool(self._rows[need][item.row :]))
                        for item in (self.items[i] for i in members)
                    ]
                )
                values[need] = _delivered(need, tokens.carry(full))
        project = self._project
        return Signals(values, project) if project else Signals(values)

    def _classes(self, members: list[int]) -> Tensor | None:
        if self._class_rows is None:
            return None
        per_view, _ = self.tower[0]
        first = [self.items[i].row // per_view for i in members]
        views = len(self.items[members[0]].encoded.grid.views)
        return torch.stack([self._class_rows[f : f + views] for f in first])


def _check_patches(part: TokensPart, tokens: VisualTokens, keep: int) -> None:
    """What another part left may be special tokens in part, which this one drops."""
    patches = tokens.extent().patches
    if keep > patches:
        raise BudgetError(
            f"{type(part).__name__} is asked for {keep} of {tokens.n} tokens that another method "
            f"left, of which it can use {patches}: the others stand for no patch; lower its keep."
        )


def _delivered(need: Need, x: Tensor) -> Tensor:
    """Values per token (B, N, ...) with the tokens where the signal's docstring has them."""
    if isinstance(need, VisionAttention):
        return x.movedim(1, -1)
    return x.transpose(1, 2) if isinstance(need, VisionKeys) else x


def _onto(tokens: VisualTokens, layout: Layout) -> VisualTokens:
    """Tokens of a smaller picture, put into the nearest slots of the full layout.

    Special tokens take the special slots in order: both pictures have as many.
    """
    b, device = len(tokens.features), tokens.features.device
    held = tokens.layout
    near = layout.once(("near", held), lambda: _near(held, layout))
    index, assign, size = (on_device(x, device).expand(b, -1) for x in near)
    return replace(tokens, index=index, assign=assign, size=size, grid=layout.grid)


def _near(encoded: Layout, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Slot (n,) of every token of a smaller picture, token (N,) of every slot, and sizes (n,)."""
    full, small = layout.grid, encoded.grid
    position, own = layout.position, encoded.position
    patch, mine = ~layout.special, ~encoded.special
    slots, numbers = torch.arange(layout.n), torch.arange(encoded.n)
    scale = torch.tensor([full.t / small.t, full.h / small.h, full.w / small.w])
    near = _cell((own[mine] + 0.5) * scale, full)
    held = _cell((position[patch] + 0.5) / scale, small)
    index, assign = torch.empty_like(numbers), torch.empty_like(slots)
    index[mine] = _table(position[patch], slots[patch], full)[near]
    assign[patch] = _table(own[mine], numbers[mine], small)[held]
    index[~mine], assign[~patch] = slots[~patch], numbers[~mine]
    return index, assign, torch.bincount(assign, minlength=encoded.n).float()


def _cell(place: Tensor, grid: Grid) -> tuple[Tensor, ...]:
    """Indices of the grid cells that hold places (K, 3) given as (t, h, w)."""
    limit = torch.tensor([grid.t, grid.h, grid.w], device=place.device) - 1
    return tuple(place.long().minimum(limit).T)


def _table(position: Tensor, numbers: Tensor, grid: Grid) -> Tensor:
    """Numbers (K,) by their grid position, (t, h, w)."""
    table = numbers.new_zeros(grid.t, grid.h, grid.w)
    table[tuple(position.T)] = numbers
    return table
