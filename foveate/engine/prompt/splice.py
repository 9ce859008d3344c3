"""Builds the shortened prompt: fewer placeholders in the ids, fewer visual features.

The model embeds the short ids and puts the features in place itself, so the code of the model
family stays unchanged.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from foveate.engine.anatomy import Anatomy
from foveate.engine.prompt.column_sources import Placed, planned
from foveate.engine.prompt.host_copy import Known, padding
from foveate.engine.prompt.positions import (
    decode_shift,
    gather_positions,
    last_column,
    renumbered,
    untouched,
)
from foveate.engine.prompt.prompt import Given, Prompt, Stage, cache_in
from foveate.engine.tower.items import Record
from foveate.errors import UnsupportedCall
from foveate.ops.counting import counters
from foveate.ops.transfer import on_device
from foveate.parts import TokensPart
from foveate.report import Trace
from foveate.tokens import VisualTokens

TYPE_NAMES = ("token_type_ids", "mm_token_type_ids")
PIXEL_NAMES = (
    "pixel_values",
    "pixel_values_images",
    "pixel_values_videos",
    "pixel_attention_mask",
    "video_compression_mask",
)


def text_prompt(ids: Tensor, mask: Any) -> Prompt:
    """The prompt (B, L) without visual tokens, which runs unchanged."""
    b, length = ids.shape
    mask = padding(mask, length)
    valid = torch.ones(b, length, dtype=torch.bool) if mask is None else mask[:, :length].bool()
    columns = torch.arange(length).expand(b, -1)
    none, full = torch.full_like(columns, -1), valid.sum(1).tolist()
    return Prompt(length, full, [Stage(0, columns, columns, valid, none, none, full)], False)


def place(
    anatomy: Anatomy, known: Known, counts: dict[str, list[int]], repeats: dict[str, int]
) -> tuple[list[list[Placed]], Tensor]:
    """The items of each row of a prompt, and the mask (B, L) of all placeholders.

    Args:
        anatomy: The model.
        known: The prompt on the CPU.
        counts: For each modality, the placeholders of every encoded item.
        repeats: For each modality, how many rows each sample has, as in beam search. Its items are
            repeated for each of them.
    """
    ids, types = known.ids, known.types
    rows: list[list[Placed]] = [[] for _ in range(ids.shape[0])]
    visual = torch.zeros_like(ids, dtype=torch.bool)
    shared = len({anatomy.placeholder(m) for m in counts}) < len(counts)
    for modality, sizes in counts.items():
        mask = ids == anatomy.placeholder(modality)
        if shared and types is not None:
            mask &= types == (1 if modality == "image" else 2)
        visual |= mask
        total = int(mask.sum())
        # Some transformers versions drop repeated features instead of repeating them.
        repeat = repeats[modality] or max(1, total // sum(sizes))
        expected = sum(sizes) * repeat
        if total != expected or total == 0 or len(rows) % repeat:
            raise UnsupportedCall(
                f"The prompt has {total} {modality} placeholders, but the {modality} inputs give "
                f"{expected} features; pass input_ids and pixels from the same processor call."
            )
        number = 0
        for start in range(0, len(rows), repeat):
            for b in range(start, start + repeat):
                columns, used, i = mask[b].nonzero()[:, 0], 0, number
                while used < len(columns):
                    if i == len(sizes) or used + sizes[i] > len(columns):
                        raise UnsupportedCall(
                            f"Row {b} has {len(columns)} {modality} placeholders, which do not "
                            f"match whole {modality} items; pass the items in the order of the "
                            "rows."
                        )
                    rows[b].append(Placed(modality, i, columns[used : used + sizes[i]]))
                    used, i = used + sizes[i], i + 1
            number = i
    for row in rows:
        row.sort(key=lambda p: int(p.columns[0]))
    return rows, visual


def visual_counts(rows: list[list[Placed]], device: torch.device) -> Tensor:
    """Number of visual tokens of each row (B,)."""
    return on_device([sum(len(p.columns) for p in row) for row in rows], device)


class Splice:
    """Builds the arguments of a shortened prefill, and the `Prompt` that describes it."""

    def __init__(
        self,
        anatomy: Anatomy,
        arguments: dict[str, Any],
        outputs: dict[str, Any],
        records: dict[str, Record],
        known: Known,
    ):
        self.anatomy = anatomy
        self.known = known
        self.kw = dict(arguments)
        self.outputs = outputs
        self.records = records
        self.ids: Tensor = arguments["input_ids"]
        self.b, self.length = self.ids.shape
        counts = {m: [i.layout.n for i in r.items] for m, r in records.items()}
        repeats = {m: r.repeats(outputs[m]) for m, r in records.items()}
        self.rows, self.visual = place(anatomy, known, counts, repeats)
        self._repeated = any(n != 1 for n in repeats.values())
        for name in PIXEL_NAMES:
            if self.kw.get(name) is not None:
                self.kw[name] = None
        # Without the record, so that the model's output does not keep its signals alive.
        self.kw["mm_encoder_outputs"] = {
            m: type(o)(**{k: v for k, v in o.items() if k != "foveate"}) for m, o in outputs.items()
        }

    def text_of(self, modality: str) -> Callable[[int, bool], Tensor]:
        """Function that returns embeddings (T, D) of the text in the row of item i of a modality.

        Its argument `paired` restricts the text to that between the item and the next item.
        """

        def embed(i: int, paired: bool) -> Tensor:
            b, own = next(
                (b, placed)
                for b, row in enumerate(self.rows)
                for placed in row
                if placed.modality == modality and placed.number == i
            )
            text = self._text()[b]
            if paired:
                text = _behind(text, self.visual[b], int(own.columns.max()))
            words = on_device(self.known.ids[b][text], self.ids.device)
            return self.anatomy.inner.get_input_embeddings()(words)

        return embed

    def reduce(
        self, parts: list[TokensPart], agnostic: bool, record_scores: bool
    ) -> dict[str, list[VisualTokens]]:
        """Run the parts before the LLM on every record."""
        return {
            m: record.reduce(parts, self.text_of(m), agnostic, record_scores)
            for m, record in self.records.items()
        }

    def default_positions(self) -> Tensor:
        """Position ids that the unchanged model uses for this prompt, (B or 1, L) or (3, B, L)."""
        given = self.kw.get("position_ids")
        if given is not None:
            return given
        inner = self.anatomy.inner
        if hasattr(inner, "compute_3d_position_ids"):
            return compute_3d(inner, self.kw, self.b, self.length)
        steps = torch.arange(self.length, device=self.ids.device)[None]
        return steps + self.anatomy.family.position_offset

    def given(self) -> Given:
        """The prompt before any change."""
        frame, count = torch.full((self.b, self.length), -1), 0
        for b, row in enumerate(self.rows):
            for placed in row:
                layout = self.records[placed.modality].items[placed.number].layout
                moving = placed.modality == "video"
                frame[b, placed.columns] = count + (layout.frame if moving else 0)
                count += len(layout.grid.views)
        counted = counters(on_device(frame, self.ids.device), self.valid)
        columns = [[placed.columns for placed in row] for row in self.rows]
        return Given(*counted, self.default_positions(), columns)

    def whole(self, positions: bool) -> Prompt:
        """The prompt with all visual tokens.

        Args:
            positions: Whether layers drop columns later. They then need position ids and a plain
                mask.
        """
        device, valid = self.ids.device, self.valid
        index = torch.arange(self.length, device=device).expand(self.b, -1)
        # The layers take all slots: slot and token are the same number here.
        item, token = on_device(self._marks(), device)
        where = self.default_positions() if positions else None
        stage = Stage(0, index, index, valid, item, token, self._lengths(), where)
        stage.held = [[len(placed.columns) for placed in row] for row in self.rows]
        stage.right = self._right()
        if where is not None:
            self.kw["position_ids"] = where
            bare = self.known.valid is None and cache_in(self.kw) is not None
            self.kw["attention_mask"] = None if bare else valid.long()
        if self._repeated:
            self._repeat()
        return Prompt(
            self.length,
            self._lengths(),
            [stage],
            reduced=False,
            entered=visual_counts(self.rows, device),
            last=last_column(valid),
            behind=self._behind(),
            since=self._since(),
        )

    def _repeat(self) -> None:
        """Repeat the features of each item for the rows that share it.

        Some versions of `generate` repeat crops and frames one by one, which changes the order of
        an item with several of them.
        """
        placed = [p for row in self.rows for p in row]
        for m, record in self.records.items():
            own = [record.items[p.number] for p in placed if p.modality == m]
            features = torch.cat([item.features for item in own])
            planes = [item.planes for item in own]
            self.kw["mm_encoder_outputs"][m] = _shorter(self.outputs[m], features, planes)

    def shorten(self, reduced: dict[str, list[VisualTokens]], packed: bool) -> Prompt:
        """Drop the columns of pruned tokens and set the arguments of the shorter call."""
        device, right = self.ids.device, self._right()
        own = [[reduced[p.modality][p.number] for p in row] for row in self.rows]
        at = self._stood(own)
        plan = planned(self.rows, self._text(), at, right, device)
        index, valid = plan.column, plan.valid
        positions = self.default_positions()
        where = gather_positions(positions, index)
        shift = None
        if packed:
            whole = untouched(index, valid, self.valid)[:, None]
            anew = renumbered(valid, positions, self.anatomy.family.position_offset)
            where = where.where(whole, anew)
            shift = decode_shift(positions, self.valid, where, valid)
        where = where.masked_fill(~valid, 0)
        local = torch.arange(index.shape[1], device=device).expand(self.b, -1)
        stage = Stage(0, index, local, valid, plan.item, plan.token, plan.lengths, where, shift)
        stage.held = [[reduced[p.modality][p.number].n for p in row] for row in self.rows]
        stage.right = right
        self._hand_over(stage)
        self.kw["mm_encoder_outputs"] = self._features(own, at)
        entered = on_device([sum(row) for row in stage.held], device)
        return Prompt(
            self.length,
            self._lengths(),
            [stage],
            reduced=True,
            entered=entered,
            last=last_column(valid),
            behind=self._behind(),
            since=self._since(),
        )

    def _stood(self, own: list[list[VisualTokens]]) -> list[list[Tensor]]:
        """Columns (n,) of the full prompt that the tokens of each item take."""
        slots = [tokens.index[0] for row in own for tokens in row]
        if not slots:
            return [[] for _ in own]
        columns = torch.cat([placed.columns for row in self.rows for placed in row])
        counts = torch.tensor([len(placed.columns) for row in self.rows for placed in row])
        lengths = [len(x) for x in slots]
        starts = (counts.cumsum(0) - counts).repeat_interleave(torch.tensor(lengths))
        device = self.ids.device
        flat = torch.cat(slots).clamp(min=0) + on_device(starts, device)
        at = iter(on_device(columns, device)[flat].split(lengths))
        return [[next(at) for _ in row] for row in own]

    def _features(self, own: list[list[VisualTokens]], at: list[list[Tensor]]) -> dict[str, Any]:
        """The features for the placeholders that are left."""
        features: dict[str, list[Tensor]] = {m: [] for m in self.records}
        planes: dict[str, list[list[Tensor]]] = {m: [] for m in self.records}
        for row, row_tokens, row_at in zip(self.rows, own, at, strict=True):
            for placed, tokens, columns in zip(row, row_tokens, row_at, strict=True):
                carried = self.records[placed.modality].planes(placed.number, tokens)
                made = [tokens.features[0], *carried]
                if not placed.contiguous:
                    order = columns.argsort(stable=True)
                    made = [x[order] for x in made]
                features[placed.modality].append(made[0])
                planes[placed.modality].append(made[1:])
        return {
            m: _shorter(self.outputs[m], torch.cat(features[m]), planes[m]) for m in self.records
        }

    def traces(self, reduced: dict[str, list[VisualTokens]]) -> list[list[Trace]]:
        """For each row the traces of its items before the LLM, on the device of the model."""
        made: dict[tuple[str, int], Trace] = {}
        for m, record in self.records.items():
            for i, (item, tokens) in enumerate(zip(record.items, reduced[m], strict=True)):
                made[m, i] = Trace(
                    item.layout,
                    tokens.index[0],
                    tokens.assign[0],
                    tokens.size[0],
                    () if record.scores is None else tuple(record.scores[i]),
                )
        return [[made[p.modality, p.number] for p in row] for row in self.rows]

    @cached_property
    def valid(self) -> Tensor:
        """(B, L) bool, False at padding."""
        device = self.ids.device
        if self.known.valid is not None:
            return on_device(self.known.valid, device)
        return torch.ones(self.b, self.length, dtype=torch.bool, device=device)

    @property
    def mask(self) -> Tensor | None:
        """The padding mask (B, L), None where nothing is padded."""
        return None if self.known.valid is None else self.valid.long()

    def _text(self) -> Tensor:
        """(B, L) bool on the CPU, True at text columns."""
        return ~self.visual if self.known.valid is None else ~self.visual & self.known.valid

    def _right(self) -> bool:
        """Whether a row is padded on the right."""
        valid = self.known.valid
        # A row of padding only is ignored.
        return valid is not None and bool((valid.any(1) & ~valid[:, -1]).any())

    def _behind(self) -> list[list[int]]:
        """For each row and item, an upper bound of the text columns after the item."""
        # Text between the frames of a video comes after it once later frames were dropped.
        ends = [[int(p.columns[-1 if p.contiguous else 0]) for p in row] for row in self.rows]
        return [[later[end] for end in row] for later, row in zip(self._later, ends, strict=True)]

    def _since(self) -> list[int]:
        """Text columns of each row after its first visual column."""
        first = [min((int(p.columns[0]) for p in row), default=0) for row in self.rows]
        return [later[start] for later, start in zip(self._later, first, strict=True)]

    @cached_property
    def _later(self) -> list[list[int]]:
        """Number of text columns of each row from every column on."""
        return self._text().flip(1).cumsum(1).flip(1).tolist()

    def _lengths(self) -> list[int]:
        if self.known.valid is None:
            return [self.length] * self.b
        return self.known.valid.sum(1).tolist()

    def _marks(self) -> Tensor:
        """Item and slot (2, B, L) of every column of the full prompt, on the CPU."""
        marks = torch.full((2, self.b, self.length), -1)
        for b, row in enumerate(self.rows):
            for number, placed in enumerate(row):
                marks[0, b, placed.columns] = number
                marks[1, b, placed.columns] = torch.arange(len(placed.columns))
        return marks

    def _hand_over(self, stage: Stage) -> None:
        kw, valid = self.kw, stage.valid
        pad = next(
            i
            for i in range(3)
            if i not in {self.anatomy.placeholder(m) for m in self.anatomy.modalities}
        )
        kw["input_ids"] = self.ids.gather(1, stage.prompt_column).masked_fill(~valid, pad)
        masked = self.known.valid is not None or stage.ragged or cache_in(kw) is None
        kw["attention_mask"] = valid.long() if masked else None
        kw["position_ids"] = stage.positions
        for name in TYPE_NAMES:
            types = kw.get(name)
            if types is None:
                continue
            if types.shape[1] != self.length:
                kw[name] = None
                continue
            kw[name] = types.gather(1, stage.prompt_column).masked_fill(
                ~valid, self.anatomy.family.type_pad
            )


def _behind(text: Tensor, visual: Tensor, end: int) -> Tensor:
    """The run of `text` (L,) after column `end`, up to the next visual column.

    All of `text` where no text follows.
    """
    later = text & (torch.arange(len(text)) > end)
    if not later.any():
        return text
    start = int(later.nonzero()[0])
    return later & (visual.cumsum(0) == visual[: start + 1].sum())


def compute_3d(inner, kw: dict[str, Any], b: int, length: int) -> Tensor:
    """M-RoPE position ids for `length` new columns, computed by the model."""
    names = inspect.signature(inner.compute_3d_position_ids).parameters
    given = {n: kw.get(n) for n in names if n in kw}
    given.update({n: cache_in(kw) for n in ("cache", "past_key_values") if n in names})
    given["inputs_embeds"] = torch.empty(b, length, 1, device=kw["input_ids"].device)
    positions = inner.compute_3d_position_ids(**given)
    if positions is not None:
        return positions
    cache = cache_in(kw)
    seen = 0 if cache is None else cache.get_seq_length()
    steps = torch.arange(length, device=kw["input_ids"].device) + seen
    return steps.expand(3, b, -1)


def _shorter(output: Any, features: Tensor, planes: list[list[Tensor]]) -> Any:
    stacked = isinstance(output.pooler_output, Tensor)
    short = type(output)(pooler_output=features[None] if stacked else [features])
    if getattr(output, "deepstack_features", None) is not None:
        short.deepstack_features = [
            [torch.cat([p[j] for p in planes])] for j in range(len(output.deepstack_features))
        ]
    return short
