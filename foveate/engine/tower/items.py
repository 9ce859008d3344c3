"""The output of one `get_*_features` call, item by item, and its reduction before the LLM."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foveate.contract_checks import check_reduce
from foveate.engine.clock import Clock
from foveate.engine.scores import token_scores
from foveate.engine.tower.fusing import ranks, with_exact_counts
from foveate.errors import BudgetError
from foveate.ops.transfer import on_device
from foveate.parts import Part, TokensPart, counted, merged_grid
from foveate.report import Scores
from foveate.signals import (
    ClassState,
    Need,
    ProjectorInput,
    RecordScores,
    Signals,
    TextEmbeddings,
    VisionAttention,
    VisionKeys,
)
from foveate.tokens import Grid, Layout, VisualTokens


@dataclass
class Item:
    """One image or video: its slots in the prompt and its features.

    Attributes:
        layout: Layout of the item's slots in the prompt.
        encoded: Layout of the features. It differs from `layout` where the encoder got a smaller
            image.
        row: Index of the item's first output row of the vision encoder.
        features: (N, D) projected features.
        planes: DeepStack features, (N, D) each.
        clusters: (N,) int, number of the merged token that each slot belongs to. None without
            merging in the encoder.
        spread: (S,) int, the encoded token nearest to each slot. None where both layouts are the
            same.
        shares: Tokens of each crop or frame that leave the encoder. None where it depends on
            features.
        whole: Patches of one crop or frame in the encoder.
        left: Patches of one crop or frame that leave the encoder. None where crops differ.
        ranked: Scores (N,) by which methods ranked its patches inside the encoder, each with the
            slug of the method.
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
    ranked: list[tuple[str, Tensor]] = field(default_factory=list)

    def over_slots(self, x: Tensor) -> Tensor:
        """Map values per encoded token (N, ...) to values per slot (S, ...)."""
        return x if self.spread is None else x[self.spread]

    def start(self) -> VisualTokens:
        """`VisualTokens` of an item that was merged in the encoder, one token per merged token.

        The encoder returns copies of each merged token, one per slot. They become one token again,
        and the tokens are ordered by the mean of their slots.
        """
        tokens = self.encoded.tokens(self.features[None])
        clusters, view = self.clusters, self.encoded.view
        if self.shares is not None:
            clusters = with_exact_counts(self.shares, clusters, self.features, view, self.whole)
        cluster, count = ranks(clusters), self._count()
        if count is None:
            count = int(cluster.max()) + 1
        slots = torch.arange(len(cluster), device=cluster.device)
        place = torch.zeros(count, device=cluster.device).scatter_reduce(
            0, cluster, slots.float(), "mean", include_self=False
        )
        assign = place.argsort().argsort()[cluster]
        features = None
        if clusters is self.clusters:
            # All copies are equal. Taking the first avoids the rounding of a mean.
            first = slots.new_full((count,), len(slots)).scatter_reduce(0, assign, slots, "amin")
            features = self.features[first][None]
        if self.encoded is not self.layout:
            tokens = _onto(tokens, self.layout)
        return tokens.merge(assign[None], count, features)

    def _count(self) -> int | None:
        """Tokens that left the encoder, special ones included; None where only the device knows."""
        grid = self.encoded.grid
        shares = self.shares or (None,) * len(grid.views)
        # After a family cut padding off a crop, its count is known from `shares` only.
        held = [
            0 if not n else self.left if n == self.whole else share
            for n, share in zip(grid.views, shares, strict=True)
        ]
        return None if None in held else sum(held) + grid.special

    @property
    def entered(self) -> Grid:
        """Grid of the tokens that leave the encoder, as far as it is known without features."""
        grid, n = self.layout.grid, self.encoded.n
        grid = grid if n == grid.n else Grid(1, 1, n)
        merged = self.clusters is not None and self.shares is not None
        return merged_grid(self.shares, grid) if merged else grid


def _encoded_otherwise(items: list[Item]) -> bool:
    """Whether the encoder's output for any item differs from that of the unchanged model."""
    return any(i.clusters is not None or i.encoded is not i.layout for i in items)


class Record:
    """The items of one `get_*_features` call and the signals recorded while they were encoded.

    Attributes:
        modality: "image" or "video".
        items: One `Item` per image or video.
        changed: Whether the LLM gets any item in another form than the unchanged model would.
        tower: For each crop or frame its patches, and its tokens in each block of the encoder.
        made: The encoder parts that ran and the signals that were recorded.
        clock: Measured the time of encoding.
        scores: Scores of each item's slots from the last `reduce`. None where they were not
            recorded.
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
        self.scores: list[list[Scores]] | None = None
        self._reduced: tuple[list[TokensPart], list[VisualTokens], bool] | None = None
        self.changed = _encoded_otherwise(items)

    def reduce(
        self,
        parts: list[TokensPart],
        text: Callable[[int, bool], Tensor],
        agnostic: bool,
        record_scores: bool = False,
    ) -> list[VisualTokens]:
        """Run the parts before the LLM; return one `VisualTokens` with B = 1 per item.

        Results of prompt-agnostic parts are cached, so that calls without a KV cache reduce once.

        Args:
            parts: The parts of the tokens stage.
            text: Function (i, paired) that returns the embeddings (T, D) of the text in the row of
                item i, or of the text paired with the item. It is called only where a part needs
                it.
            agnostic: Whether the result does not depend on the prompt.
            record_scores: Whether to keep the scores by which parts rank tokens.
        """
        again = self._reduced is not None and self._reduced[0] is parts
        if again and record_scores == (self.scores is not None):
            _, left, self.changed = self._reduced
            return left
        self.scores = [self._encoded(i) for i in self.items] if record_scores else None
        self.changed = _encoded_otherwise(self.items)
        groups: dict[tuple, list[int]] = defaultdict(list)
        reads_text = any(isinstance(n, TextEmbeddings) for p in parts for n in p.needs)
        for i, item in enumerate(self.items):
            alone = i if reads_text or item.clusters is not None else -1
            groups[id(item.layout), id(item.encoded), alone].append(i)
        done: dict[int, VisualTokens] = {}
        for members in groups.values():
            tokens = self._start(members)
            grid = self.items[members[0]].entered
            if grid.n != tokens.n:
                # Thresholds decided how many tokens merge, so the grid is only known now.
                grid = Grid(1, 1, tokens.n)
            for part in parts:
                keep = counted(part, grid)
                if keep == tokens.n:
                    continue
                if tokens.n != tokens.grid.n and getattr(part, "drops_special", False):
                    _check_patches(part, tokens, keep)
                grid = part.left(grid, keep)
                record = partial(self._note, part, members, tokens) if record_scores else None
                signals = self._signals(part.needs, members, tokens, text, record)
                self.changed = True
                tokens = check_reduce(part, part.reduce(tokens, signals, keep), tokens, keep)
            for row, i in enumerate(members):
                done[i] = tokens.row(row)
        left = [done[i] for i in range(len(self.items))]
        if agnostic and not reads_text:
            self._reduced = parts, left, self.changed
        return left

    def _encoded(self, item: Item) -> list[Scores]:
        return [Scores("encoders", None, slug, item.over_slots(x)) for slug, x in item.ranked]

    def _note(self, part: TokensPart, members, tokens, scores: Tensor, ranked) -> None:
        for i, found in zip(members, token_scores(part, tokens, scores, ranked), strict=True):
            self.scores[i].append(found)

    def _start(self, members: list[int]) -> VisualTokens:
        first = self.items[members[0]]
        if first.clusters is not None:
            return first.start()
        tokens = first.encoded.tokens(torch.stack([self.items[i].features for i in members]))
        if first.encoded is first.layout:
            return tokens
        return _onto(tokens, first.layout)

    def repeats(self, output: Any) -> int:
        """How often the features of `output` were repeated, as beam search and sampling do."""
        rows = sum(f.numel() // f.shape[-1] for f in output.pooler_output)
        return rows // sum(item.layout.n for item in self.items)

    def fill(self, output: Any) -> None:
        """Give every slot of a smaller image a feature, so that the output has its usual length.

        `generate` assigns features to samples by their number.
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
        """DeepStack features of item i, (K, D) each, reduced like its tokens."""
        item = self.items[i]
        return [tokens.carry(item.over_slots(plane)[None])[0] for plane in item.planes]

    def attention(self, i: int, need: VisionAttention, tokens: VisualTokens) -> Tensor:
        """A recorded signal (..., N) of item i, reduced like its tokens."""
        return self._signals((need,), [i], tokens, None)[need][0]

    def _signals(
        self, needs, members, tokens: VisualTokens, text, record: RecordScores | None = None
    ) -> Signals:
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
        return Signals(values, self._project or _same, record)

    def _classes(self, members: list[int]) -> Tensor | None:
        if self._class_rows is None:
            return None
        per_view, _ = self.tower[0]
        first = [self.items[i].row // per_view for i in members]
        views = len(self.items[members[0]].encoded.grid.views)
        return torch.stack([self._class_rows[f : f + views] for f in first])


def _check_patches(part: TokensPart, tokens: VisualTokens, keep: int) -> None:
    """Refuse a count that another method's tokens can't satisfy: some may be special tokens."""
    patches = tokens.extent().patches
    if keep > patches:
        raise BudgetError(
            f"{type(part).__name__} should keep {keep} tokens, but only {patches} of the "
            f"{tokens.n} tokens that another method kept stand for patches; use keep={patches} or "
            "less."
        )


def _same(x: Tensor) -> Tensor:
    return x


def _delivered(need: Need, x: Tensor) -> Tensor:
    """Values per token (B, N, ...) with their axes in the order of the signal's docstring."""
    if isinstance(need, VisionAttention):
        return x.movedim(1, -1)
    return x.transpose(1, 2) if isinstance(need, VisionKeys) else x


def _onto(tokens: VisualTokens, layout: Layout) -> VisualTokens:
    """Map the tokens of a smaller image to the nearest slots of the full layout.

    Special tokens take the special slots in order. Both layouts have the same number of them.
    """
    b, device = len(tokens.features), tokens.features.device
    held = tokens.layout
    near = layout.once(("near", held), lambda: _near(held, layout))
    index, assign, size = (on_device(x, device).expand(b, -1) for x in near)
    return replace(tokens, index=index, assign=assign, size=size, grid=layout.grid)


def _near(encoded: Layout, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """For a smaller image: nearest slot (n,) of its tokens, nearest token (N,) of slots, sizes."""
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
    """Indices of the grid cells that contain the positions (K, 3), given as (t, h, w)."""
    limit = torch.tensor([grid.t, grid.h, grid.w], device=place.device) - 1
    return tuple(place.long().minimum(limit).T)


def _table(position: Tensor, numbers: Tensor, grid: Grid) -> Tensor:
    """Numbers (K,) in a (t, h, w) table at their grid positions."""
    table = numbers.new_zeros(grid.t, grid.h, grid.w)
    table[tuple(position.T)] = numbers
    return table
