"""One prompt on its way through the decoder: which columns each layer holds, and where they stand.

Columns are counted in the prompt that the caller gave, (B, L). A `Stage` says what the layers from
one boundary on see of it. The prompt hangs on the cache that it filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from foveate.attention_call import Columns
from foveate.engine.clock import Clock
from foveate.errors import UnsupportedCall
from foveate.ops.transfer import on_device
from foveate.parts import Counts, RulePart
from foveate.report import Trace


@dataclass(eq=False)
class Stage:
    """What the layers from `boundary` on see of the prompt.

    index (B, N): columns of the caller's prompt. local (B, N): columns of the first stage.
    valid (B, N) bool: no padding. item (B, N): number of the visual item within the row, -1 text.
    slot (B, N): output token of that item, -1 for text. lengths: valid columns per row.
    positions (..., B, N): position ids of these columns, None where nobody needs them.
    shift (..., B, 1): what a decoded token's position loses in these layers, None for nothing.
    sight (B, N): columns of the first stage whose masks these columns take, where a part changed
    their order; None for `local`. holder (B, N of the first stage): column of the first stage that
    stands for each of its columns, -1 for none, where a part merged; None where nothing merged.
    facts: what rules are told of these columns, once one asked. stands (B, L): which of them stands
    for each column of the caller's prompt, likewise.
    held: per row and visual item, its columns. right: rows are padded on the right.
    """

    boundary: int
    index: Tensor
    local: Tensor
    valid: Tensor
    item: Tensor
    slot: Tensor
    lengths: list[int]
    positions: Tensor | None = None
    shift: Tensor | None = None
    sight: Tensor | None = None
    holder: Tensor | None = None
    facts: Columns | None = None
    stands: Tensor | None = None
    held: list[list[int]] = field(default_factory=list)
    right: bool = False

    @property
    def n(self) -> int:
        """Columns, padding included."""
        return self.index.shape[1]

    @property
    def shown_as(self) -> Tensor:
        """Columns (B, N) of the first stage whose masks these columns take."""
        return self.local if self.sight is None else self.sight

    @property
    def ragged(self) -> bool:
        """Whether some row has padding."""
        return min(self.lengths) < self.n

    def ends_in_text(self, length: int, count: int) -> bool:
        """Whether its last columns are the last `count` of `length` that the caller gave, text."""
        if self.n < count:
            return False
        last = slice(-count, None)
        index = torch.arange(length - count, length, device=self.index.device)
        text = self.valid[:, last] & (self.item[:, last] < 0) & (self.index[:, last] == index)
        if self.sight is not None:
            text &= self.sight[:, last] == self.local[:, last]
        return bool(text.all())

    def cut(self, count: int) -> Stage:
        """All but the last `count` columns, which are text in every row."""

        def left(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[..., :-count]

        return replace(
            self,
            index=self.index[:, :-count],
            local=self.local[:, :-count],
            valid=self.valid[:, :-count],
            item=self.item[:, :-count],
            slot=self.slot[:, :-count],
            lengths=[n - count for n in self.lengths],
            positions=left(self.positions),
            sight=left(self.sight),
            holder=left(self.holder),
            facts=None,
            stands=None,
        )

    def take(self, rows: Tensor) -> Stage:
        """The samples `rows` (R,), in that order and as often. lengths, held: as they were."""
        return replace(
            self,
            index=self.index[rows],
            local=self.local[rows],
            valid=self.valid[rows],
            item=self.item[rows],
            slot=self.slot[rows],
            positions=_rows_of(self.positions, rows),
            shift=_rows_of(self.shift, rows),
            sight=None if self.sight is None else self.sight[rows],
            holder=None if self.holder is None else self.holder[rows],
            facts=None,
            stands=None,
        )


@dataclass(frozen=True, eq=False)
class Given:
    """The prompt as the caller gave it. order, words, frames (B, L): see `Columns`.

    positions (..., B or 1, L): ids that the model would use. columns: per row and item the columns
    (n,) of its placeholders.
    """

    order: Tensor
    words: Tensor
    frames: Tensor
    positions: Tensor
    columns: list[list[Tensor]]

    def cut(self, count: int) -> Given:
        """All but the last `count` columns, which are text in every row."""
        return replace(
            self,
            order=self.order[:, :-count],
            words=self.words[:, :-count],
            frames=self.frames[:, :-count],
            positions=self.positions[..., :-count],
        )

    def take(self, rows: Tensor) -> Given:
        """The samples `rows` (R,), in that order and as often."""
        return Given(
            self.order[rows],
            self.words[rows],
            self.frames[rows],
            _rows_of(self.positions, rows),
            [self.columns[r] for r in rows.tolist()],
        )


@dataclass
class Prompt:
    """All stages of one prompt. length: columns L that the caller gave; full: of these, per row,
    how many are no padding; entered (B,): visual tokens per row that entered layer 0. detours: what
    runs through a layer that some columns go around. place (B, N, 3), frame (B, N): of the columns
    of the first stage, as in `BoundaryState`. behind, since, frames: as in `Counts`. clock: what
    measures its stages.

    given, rules, notes, saved: for the rules that hold for it: what the caller gave, the rules,
    what each part wrote, by the id of its owner, and per row the FLOPs and bytes that they saved.
    held: what the caches of layers hold that hold less than ran through them. stored: bytes of
    those caches that are in a form of their own, by layer. open_end: whether candidates of assisted
    decoding may be among its last columns, read as a part of the question.
    """

    length: int
    full: list[int]
    stages: list[Stage]
    reduced: bool
    traces: list[list[Trace]] = field(default_factory=list)
    entered: Tensor | None = None
    last: Tensor | None = None
    given: Any = None
    rules: tuple[RulePart, ...] = ()
    notes: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    saved: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)
    held: dict[int, Stage] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    soft: bool = False
    open_end: bool = False
    detours: dict[int, Stage] = field(default_factory=dict)
    place: Tensor | None = None
    frame: Tensor | None = None
    behind: list[list[int]] = field(default_factory=list)
    since: list[int] = field(default_factory=list)
    frames: int = 1
    clock: Clock | None = None

    @property
    def first(self) -> Stage:
        """What layer 0 sees."""
        return self.stages[0]

    @property
    def changed(self) -> bool:
        """Whether the layers hold, or will do, anything else than those of the bare model."""
        apart = self.detours or self.held or self.stored or self.rules or self.soft
        return bool(self.reduced or len(self.stages) > 1 or apart)

    @property
    def missing(self) -> int:
        """Columns that layer 0 lacks of the caller's prompt."""
        return self.length - self.at(0).n

    @cached_property
    def shifts(self) -> tuple[list[Tensor], Tensor | None]:
        """All shifts of stages, one by one and as columns (..., B, S)."""
        every = [s.shift for s in (*self.stages, *self.detours.values()) if s.shift is not None]
        found = list({id(shift): shift for shift in every}.values())
        return found, torch.cat(found, -1) if found else None

    def at(self, layer: int) -> Stage:
        """What runs through a layer, and what its cache holds."""
        return self.detours.get(layer) or self.stream(layer)

    def stream(self, layer: int) -> Stage:
        """What enters and leaves a layer, columns that go around it included."""
        return next(s for s in reversed(self.stages) if s.boundary <= layer)

    def cut(self, count: int) -> Prompt:
        """The prompt without its last `count` columns; `UnsupportedCall` unless they are text."""
        stages = [*self.stages, *self.detours.values(), *self.held.values()]
        if not all(stage.ends_in_text(self.length, count) for stage in stages):
            raise UnsupportedCall(
                f"The last {count} columns of the prompt hold visual tokens or padding, which a "
                "shortened cache can't give back; crop it to text behind the last picture, or "
                "start a fresh call."
            )

        def left(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[:, :-count]

        return replace(
            self,
            length=self.length - count,
            full=[n - count for n in self.full],
            stages=[stage.cut(count) for stage in self.stages],
            detours={i: stage.cut(count) for i, stage in self.detours.items()},
            held={i: stage.cut(count) for i, stage in self.held.items()},
            given=None if self.given is None else self.given.cut(count),
            last=None if self.last is None else self.last - count,
            place=left(self.place),
            frame=left(self.frame),
        )

    def take(self, rows: Tensor) -> Prompt:
        """The samples `rows` (R,), in that order and as often. full: as it was."""

        def taken(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[rows]

        # Only rules and what holds caches ask which items stand in which row behind the prompt.
        ruled = self.given is not None
        stages = [stage.take(rows) for stage in self.stages]
        if ruled or self.stored:
            stages[0].held = [stages[0].held[r] for r in rows.tolist()]
        return replace(
            self,
            stages=stages,
            detours={i: stage.take(rows) for i, stage in self.detours.items()},
            held={i: stage.take(rows) for i, stage in self.held.items()},
            traces=[self.traces[r] for r in rows.tolist()] if ruled else self.traces,
            given=self.given.take(rows) if ruled else None,
            entered=taken(self.entered),
            last=taken(self.last),
            place=taken(self.place),
            frame=taken(self.frame),
        )


def counts_of(prompt: Prompt, stage: Stage) -> Counts:
    """What the host knows of the columns of a stage."""
    text = [n - sum(row) for n, row in zip(stage.lengths, stage.held, strict=True)]
    moved = stage.sight is not None
    return Counts(
        entered=[sum(row) for row in prompt.first.held],
        held=stage.held,
        text=text,
        # Columns that changed their order may stand anywhere among the text.
        behind=[[n] * len(row) for n, row in zip(text, stage.held, strict=True)]
        if moved
        else prompt.behind,
        since=text if moved else prompt.since,
        frames=prompt.frames,
        patches=[[trace.layout.grid.patches for trace in row] for row in prompt.traces],
    )


def rotating(positions: Tensor) -> Tensor:
    """Ids that rotate, where ids of text may stand in front of those of three axes."""
    return positions[1:] if positions.dim() == 3 and positions.shape[0] == 4 else positions


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The cache among the arguments of a call, whichever of its two names transformers uses."""
    cache = arguments.get("cache")
    return arguments.get("past_key_values") if cache is None else cache


def seen_columns(cache: Cache) -> int:
    """Columns that layer 0 of a cache has taken in, whatever the cache says of itself."""
    return int(cache.layers[0].get_seq_length()) if len(cache.layers) else 0


def _rows_of(positions: Tensor | None, rows: Tensor) -> Tensor | None:
    """Samples of ids (..., B or 1, N); where all share one row, they still do."""
    if positions is None or positions.shape[-2] == 1:
        return positions
    return positions.index_select(-2, rows)


def pad_rows(rows: list[Tensor], fill: int, right: bool) -> tuple[Tensor, Tensor]:
    """Rows (n_b,) as one (B, N) tensor padded on one side, and which entries are real."""
    n = max(len(r) for r in rows)
    out = rows[0].new_full((len(rows), n), fill)
    valid = torch.zeros(len(rows), n, dtype=torch.bool, device=out.device)
    for b, row in enumerate(rows):
        where = slice(0, len(row)) if right else slice(n - len(row), n)
        out[b, where] = row
        valid[b, where] = True
    return out, valid


def pad_front(order: Tensor, lengths: list[int], right: bool) -> tuple[Tensor, Tensor]:
    """The first entries of each row of `order` (B, N), as many as `lengths` says, padded by 0.

    As (B, longest), and which entries are real.
    """
    n = max(lengths)
    columns = order[:, :n]
    if min(lengths) == n:
        return columns, torch.ones_like(columns, dtype=torch.bool)
    short = [0 if right else n - length for length in lengths]
    ends = [s + length for s, length in zip(short, lengths, strict=True)]
    start, end = on_device([short, ends], order.device)[..., None]
    steps = torch.arange(n, device=order.device)
    valid = (steps >= start) & (steps < end)
    return columns.gather(1, (steps - start).clamp(min=0)).masked_fill(~valid, 0), valid


def gather_positions(positions: Tensor, index: Tensor) -> Tensor:
    """Position ids (..., B or 1, L) at columns (B, N) -> (..., B, N)."""
    shape = (*positions.shape[:-2], *index.shape)
    return positions.expand(*positions.shape[:-2], index.shape[0], -1).gather(
        -1, index.expand(shape)
    )


def renumbered(valid: Tensor, like: Tensor, offset: int) -> Tensor:
    """Position ids that count the valid columns of each row, in the shape of `like` (..., B, L)."""
    ids = (valid.long().cumsum(1) - 1).clamp(min=0) + offset
    return ids.expand(*like.shape[:-2], *valid.shape)


def untouched(columns: Tensor, valid: Tensor, before: Tensor) -> Tensor:
    """Rows (B,) of which all columns of `before` (B, L) go on, in their order.

    columns (B, N): what goes on of them, where `valid` (B, N). A row that loses nothing keeps its
    positions, whatever becomes of the others: alone it would be the bare model.
    """
    inner = valid[:, 1:] & valid[:, :-1]
    ordered = ((columns.diff(dim=1) > 0) | ~inner).all(1)
    return ordered & (valid.sum(1) == before.sum(1))


def last_column(valid: Tensor) -> Tensor:
    """Column (B,) of the last valid entry of each row."""
    n = valid.shape[1]
    return n - 1 - valid.flip(1).long().argmax(1)


def decode_shift(positions: Tensor, valid: Tensor, stage: Tensor, stage_valid: Tensor) -> Tensor:
    """What packed positions lose against the original ones behind the prompt, (..., B, 1)."""
    end = last_column(valid)[:, None]
    stage_end = last_column(stage_valid)[:, None]
    return gather_positions(positions, end) - gather_positions(stage, stage_end)


def shifted(positions: Tensor, shift: Tensor | None) -> Tensor:
    """Position ids of new tokens as a stage counts them."""
    if shift is None:
        return positions
    if positions.dim() == 3 and shift.dim() == 3 and positions.shape[0] != shift.shape[0]:
        shift = shift[-1:]
    return positions - shift
