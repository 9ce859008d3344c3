"""One prompt on its way through the decoder: which columns each layer holds, and their positions.

A column is one sequence position of one row: a text token, a visual token or padding. A `Stage`
describes the columns of the layers from one boundary on. A `Prompt` is the list of its stages. It
is stored with the KV cache that it filled.

Index spaces. Each numbers the same prompt at another point on its way through the model. In all of
them -1 means "none".

name            numbers                                   range      how it converts into the next
--------------  ----------------------------------------  ---------  ------------------------------
tower row       output rows of the vision encoder         0..R-1     slot -> tower rows:
                                                                     Item.row + Layout.rows[slot]
slot            visual tokens of one item as the bare     0..S-1     slot -> token: Trace.assign
                model makes them: one for each of its                slot -> prompt column:
                placeholders in the prompt                           Placed.columns[slot]
token           visual tokens of one item that enter      0..n-1     token -> slot: Trace.index
                layer 0                                              (-1: a new vector)
number          items of one modality in the whole        0..        Placed.number of each item
                batch, as the vision encoder gets them               of a row
item            visual items of one row, in the order     0..        column -> item, token:
                of their first placeholders                          Stage.item, Stage.token
prompt column   the prompt that the caller gave           0..L-1     columns that the model runs:
                                                                     Stage.prompt_column
first column    columns of layer 0 (`Prompt.first`)       0..N0-1    column -> first column:
                                                                     Stage.first_column
column          columns of a later stage, or of one       0..N-1     first column -> column: scatter
                layer that some columns skip                         `arange(N)` at first_column
cache column    what the cache of a layer holds: the      0..K-1     column N + j is the j-th new
                columns of `cached` or `at`, then the                one; a sliding window cuts
                new columns (decode steps, later turns)              columns off the start

Merging and reordering. `Stage.merged_into` maps first column -> first column: which one holds a
column that was merged. `Stage.reordered_column` maps column -> first column: whose turn in the
causal order a column has taken.

A position is not an index: it is the id that RoPE rotates by, and ids may have gaps; see
`positions`.
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
from foveate.engine.prompt.positions import rows_of_positions
from foveate.errors import UnsupportedCall
from foveate.parts import Counts, RulePart
from foveate.report import Trace


@dataclass(eq=False)
class Stage:
    """The columns of the layers from `boundary` on. The module docstring has the index spaces.

    Attributes:
        boundary: the first decoder layer that holds these columns.
        prompt_column: column of the caller's prompt, (B, N).
        first_column: column of layer 0, (B, N).
        valid: False for padding, (B, N) bool.
        item: visual item of the row, (B, N); -1 for text.
        token: token of that item, as it entered layer 0, (B, N); -1 for text.
        lengths: columns of each row that are not padding.
        positions: position ids, (..., B, N); None where no part needs them.
        shift: what is subtracted from the position of a decoded token in these layers, (..., B, 1);
            None for nothing.
        reordered_column: the first column whose place in the causal order, and so whose row and
            column of a mask, a column has taken, (B, N); None where no part changed the order.
        merged_into: for each column of layer 0 the first column that it was merged into, (B, N0);
            itself where it was not merged, -1 where it was dropped. None where nothing was merged.
        facts: what rules are told of these columns; None until a rule asks.
        of_prompt: for each column of the caller's prompt the column here that holds it, (B, L);
            -1 for none. None until a rule asks.
        held: for each row and visual item, how many columns it has here.
        right: whether some row is padded on the right.
    """

    boundary: int
    prompt_column: Tensor
    first_column: Tensor
    valid: Tensor
    item: Tensor
    token: Tensor
    lengths: list[int]
    positions: Tensor | None = None
    shift: Tensor | None = None
    reordered_column: Tensor | None = None
    merged_into: Tensor | None = None
    facts: Columns | None = None
    of_prompt: Tensor | None = None
    held: list[list[int]] = field(default_factory=list)
    right: bool = False

    @property
    def n(self) -> int:
        """Columns, padding included."""
        return self.prompt_column.shape[1]

    @property
    def mask_column(self) -> Tensor:
        """The first column (B, N) whose row and column of a mask each column takes."""
        return self.first_column if self.reordered_column is None else self.reordered_column

    @property
    def ragged(self) -> bool:
        """Whether some row has padding."""
        return min(self.lengths) < self.n

    def ends_in_text(self, length: int, count: int) -> bool:
        """Whether its last `count` columns are the last ones of the caller's `length`, and text."""
        if self.n < count:
            return False
        last = slice(-count, None)
        index = torch.arange(length - count, length, device=self.prompt_column.device)
        text = (
            self.valid[:, last] & (self.item[:, last] < 0) & (self.prompt_column[:, last] == index)
        )
        if self.reordered_column is not None:
            text &= self.reordered_column[:, last] == self.first_column[:, last]
        return bool(text.all())

    def cut(self, count: int) -> Stage:
        """All but the last `count` columns, which are text in every row."""

        def left(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[..., :-count]

        return replace(
            self,
            prompt_column=self.prompt_column[:, :-count],
            first_column=self.first_column[:, :-count],
            valid=self.valid[:, :-count],
            item=self.item[:, :-count],
            token=self.token[:, :-count],
            lengths=[n - count for n in self.lengths],
            positions=left(self.positions),
            reordered_column=left(self.reordered_column),
            merged_into=left(self.merged_into),
            facts=None,
            of_prompt=None,
        )

    def take(self, rows: Tensor) -> Stage:
        """The samples `rows` (R,), in that order; a row may come several times.

        `lengths` and `held` stay as they were.
        """
        return replace(
            self,
            prompt_column=self.prompt_column[rows],
            first_column=self.first_column[rows],
            valid=self.valid[rows],
            item=self.item[rows],
            token=self.token[rows],
            positions=rows_of_positions(self.positions, rows),
            shift=rows_of_positions(self.shift, rows),
            reordered_column=None if self.reordered_column is None else self.reordered_column[rows],
            merged_into=None if self.merged_into is None else self.merged_into[rows],
            facts=None,
            of_prompt=None,
        )


@dataclass(frozen=True, eq=False)
class ColumnScores:
    """Scores that a part gave the columns of one stage of a prompt.

    Attributes:
        stage: as in `Scores`.
        layer: as in `Scores`.
        method: as in `Scores`.
        columns: the stage.
        values: (B, N) float32, NaN at columns that were not ranked.
    """

    stage: str
    layer: int
    method: str
    columns: Stage
    values: Tensor


@dataclass(frozen=True, eq=False)
class Given:
    """The prompt as the caller gave it.

    Attributes:
        order: see `Columns`, (B, L).
        words: see `Columns`, (B, L).
        frames: see `Columns`, (B, L).
        positions: position ids that the bare model would use, (..., B or 1, L).
        columns: for each row and item the prompt columns of its placeholders, (S,).
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
        """The samples `rows` (R,), in that order; a row may come several times."""
        return Given(
            self.order[rows],
            self.words[rows],
            self.frames[rows],
            rows_of_positions(self.positions, rows),
            [self.columns[r] for r in rows.tolist()],
        )


@dataclass
class Prompt:
    """All stages of one prompt, and what was noted about it. The same object is read in decoding.

    Attributes:
        length: columns that the caller gave, L.
        full: for each row, how many of these are not padding.
        stages: the stages, by ascending boundary.
        reduced: whether layer 0 already has fewer or other columns than the caller gave.
        traces: for each row and item, what became of its tokens before layer 0.
        entered: visual tokens of each row that entered layer 0, (B,).
        last: column of layer 0 that holds the last token of each row, (B,).
        given: the prompt as the caller gave it, for rules; None where the method has no rules.
        rules: the rules that hold for this prompt.
        notes: what each part noted for later layers and decode steps, by the id of its owner.
        saved: FLOPs (B,) and bytes (B,) of each row that rules saved, one entry per saving.
        cached: by layer, what its cache holds, where that is less than what ran through the layer.
        stored: by layer, bytes of its cache, where that is stored in another form (quantised).
        soft: whether selection was soft, in training.
        open_end: whether its last columns may be candidates of assisted decoding, which the method
            read as a part of the question.
        detours: by layer, what runs through it, where some columns skip the layer.
        place: grid cell (t, h, w) of each column of layer 0, (B, N0, 3); see `BoundaryState`.
        frame: frame of each column of layer 0, (B, N0); see `BoundaryState`.
        behind: see `Counts`.
        since: see `Counts`.
        frames: see `Counts`.
        clock: measures encode, select, prefill and decode.
        scores: the scores by which parts ranked columns; None where they are not recorded.
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
    cached: dict[int, Stage] = field(default_factory=dict)
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
    scores: list[ColumnScores] | None = None

    @property
    def first(self) -> Stage:
        """The columns of layer 0."""
        return self.stages[0]

    @property
    def changed(self) -> bool:
        """Whether any layer holds or computes anything else than in the bare model."""
        apart = self.detours or self.cached or self.stored or self.rules or self.soft
        return bool(self.reduced or len(self.stages) > 1 or apart)

    @property
    def missing(self) -> int:
        """How many columns of the caller's prompt layer 0 does not have."""
        return self.length - self.at(0).n

    @cached_property
    def shifts(self) -> tuple[list[Tensor], Tensor | None]:
        """The S different shifts of all stages, one by one and side by side (..., B, S)."""
        every = [s.shift for s in (*self.stages, *self.detours.values()) if s.shift is not None]
        found = list({id(shift): shift for shift in every}.values())
        return found, torch.cat(found, -1) if found else None

    def at(self, layer: int) -> Stage:
        """The columns that run through a layer, and that its cache holds, see `cached`."""
        return self.detours.get(layer) or self.stream(layer)

    def stream(self, layer: int) -> Stage:
        """The columns that enter and leave a layer, including those that skip it."""
        return next(s for s in reversed(self.stages) if s.boundary <= layer)

    def cut(self, count: int) -> Prompt:
        """The prompt without its last `count` columns; `UnsupportedCall` unless they are text."""
        stages = [*self.stages, *self.detours.values(), *self.cached.values()]
        if not all(stage.ends_in_text(self.length, count) for stage in stages):
            raise UnsupportedCall(
                f"The last {count} tokens of the prompt include visual tokens or padding, which "
                "can't be cropped from a shortened cache; crop only text after the last image or "
                "video, or start a new call without the cache."
            )

        def left(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[:, :-count]

        return replace(
            self,
            length=self.length - count,
            full=[n - count for n in self.full],
            stages=[stage.cut(count) for stage in self.stages],
            detours={i: stage.cut(count) for i, stage in self.detours.items()},
            cached={i: stage.cut(count) for i, stage in self.cached.items()},
            given=None if self.given is None else self.given.cut(count),
            last=None if self.last is None else self.last - count,
            place=left(self.place),
            frame=left(self.frame),
        )

    def take(self, rows: Tensor) -> Prompt:
        """The samples `rows` (R,), in that order; a row may come several times.

        `full` stays as it was.
        """

        def taken(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[rows]

        # After prefill only rules and stored caches ask which items belong to which row.
        ruled = self.given is not None
        stages = [stage.take(rows) for stage in self.stages]
        if ruled or self.stored:
            stages[0].held = [stages[0].held[r] for r in rows.tolist()]
        return replace(
            self,
            stages=stages,
            detours={i: stage.take(rows) for i, stage in self.detours.items()},
            cached={i: stage.take(rows) for i, stage in self.cached.items()},
            traces=[self.traces[r] for r in rows.tolist()] if ruled else self.traces,
            given=self.given.take(rows) if ruled else None,
            entered=taken(self.entered),
            last=taken(self.last),
            place=taken(self.place),
            frame=taken(self.frame),
        )


def counts_of(prompt: Prompt, stage: Stage) -> Counts:
    """What is known of the columns of a stage on the CPU."""
    text = [n - sum(row) for n, row in zip(stage.lengths, stage.held, strict=True)]
    moved = stage.reordered_column is not None
    return Counts(
        entered=[sum(row) for row in prompt.first.held],
        held=stage.held,
        text=text,
        # Where the order of columns was changed, all the text may come after an item.
        behind=[[n] * len(row) for n, row in zip(text, stage.held, strict=True)]
        if moved
        else prompt.behind,
        since=text if moved else prompt.since,
        frames=prompt.frames,
        patches=[[trace.layout.grid.patches for trace in row] for row in prompt.traces],
    )


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The cache among the arguments or outputs of a call, by either of its two names."""
    # An output of transformers logs a deprecation when it is asked for the name that it lacks.
    found = (arguments[name] for name in ("cache", "past_key_values") if name in arguments.keys())
    return next((cache for cache in found if cache is not None), None)


def seen_columns(cache: Cache) -> int:
    """How many columns layer 0 of a cache has taken in.

    Asks the layer: `Cache.get_seq_length` counts the caller's columns once a method is attached.
    """
    return int(cache.layers[0].get_seq_length()) if len(cache.layers) else 0


def starts_prompt(arguments: Mapping[str, Any]) -> bool:
    """Whether a call begins a prompt: it has no cache, or an empty one."""
    cache = cache_in(arguments)
    return cache is None or not seen_columns(cache)
