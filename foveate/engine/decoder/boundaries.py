"""Runs `LayersPart`s: hooks on decoder layers that drop or merge columns between layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from foveate.contract_checks import check_at_boundary
from foveate.engine.anatomy import Anatomy
from foveate.engine.attention_taps import extras, implementation, probabilities
from foveate.engine.decoder.columns import (
    as_merge,
    follow_merges,
    heads_at_stage,
    merge_columns,
    pad_front,
    values_at_stage,
)
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.decoder.layer_skipping import Detours
from foveate.engine.decoder.lookahead import next_attention, next_heads
from foveate.engine.decoder.masks import decode_mask, prefill_mask, soft_mask, square
from foveate.engine.decoder.transitions import recording_transitions
from foveate.engine.decoder.windows import mask_of_rows, window_of
from foveate.engine.prompt.locations import extents_of, places_of
from foveate.engine.prompt.positions import (
    decode_shift,
    gather_positions,
    last_column,
    renumbered,
    rotating,
    shifted,
    untouched,
)
from foveate.engine.prompt.prompt import Stage, counts_of
from foveate.engine.scores import column_scores
from foveate.errors import InvalidParameter, UnsupportedCall
from foveate.ops.attention import Heads
from foveate.ops.gather import rows_at
from foveate.parts import BoundaryState, DetourPart, LayersPart, Merge, Part, Soft
from foveate.signals import (
    DecoderAttention,
    DecoderHeads,
    DecoderKeys,
    DecoderTransition,
    Signals,
    VisionAttention,
)


class Boundaries:
    """The parts of one attachment that act between decoder layers, by boundary."""

    def __init__(self, anatomy: Anatomy, parts: list[Part]):
        self.anatomy = anatomy
        self.n = len(anatomy.layers)
        self.at: dict[int, list[LayersPart]] = {}
        for part in parts:
            for k in part.boundaries(self.n) if isinstance(part, LayersPart) else ():
                if not 0 <= k < self.n:
                    raise InvalidParameter(
                        f"Layer {k} is out of range: the model has {self.n} decoder layers "
                        f"(0-{self.n - 1})."
                    )
                self.at.setdefault(k, []).append(part)
        parts = [p for p in parts if isinstance(p, LayersPart | DetourPart)]
        self.detours = Detours(self, parts)
        self.needs = list(
            dict.fromkeys(
                n
                for p in parts
                for n in p.needs_in(self.n)
                if isinstance(n, DecoderAttention | DecoderKeys | DecoderTransition)
            )
        )
        self.vision_needs = list(
            dict.fromkeys(n for p in parts for n in p.needs if isinstance(n, VisionAttention))
        )
        self.followed = {
            k - 1
            for at in (self.at, self.detours.at)
            for k, acting in at.items()
            if k and any(DecoderHeads() in p.needs_in(self.n) for p in acting)
        }
        for need in self.needs:
            if not 0 <= need.layer < self.n:
                raise InvalidParameter(
                    f"Layer {need.layer} is out of range: the model has {self.n} decoder layers "
                    f"(0-{self.n - 1})."
                )
        self._rotary = tuple(inspect.signature(anatomy.text.rotary_emb.forward).parameters)
        self._typed_rotary = "layer_type" in self._rotary
        # Set by `Rules`: changes the rotary tables of a layer that has not run yet.
        self.ahead: Callable[..., tuple[Tensor, Tensor]] | None = None

    def __bool__(self) -> bool:
        return bool(self.at or self.detours.at)

    @property
    def start(self) -> int:
        """The first layer with changed columns."""
        return min((*self.at, *self.detours.at))

    def readers(self, call: DecoderCall) -> Iterator[tuple[int, Callable[..., None]]]:
        """For each layer whose attention parts read: the function that records it.

        A layer can be tapped only once.
        """
        attended = {n.layer for n in self.needs if not isinstance(n, DecoderTransition)}
        for layer in attended | self.followed:
            yield layer, self._reader(layer, call)

    def watchers(self, call: DecoderCall) -> Iterator[AbstractContextManager[None]]:
        """Context managers that record the transitions that parts read."""
        for need in self.needs:
            if isinstance(need, DecoderTransition):
                layer = self.anatomy.layers[need.layer]
                yield recording_transitions(layer, partial(call.seen.__setitem__, need))

    def _reader(self, layer: int, call: DecoderCall) -> Callable[..., None]:
        window = window_of(self.anatomy.layers[layer].self_attn)

        # A checkpointed layer is recomputed without this reader. Recomputation must save the same
        # number of tensors, so the reader saves none.
        @torch.no_grad()
        def read(query: Tensor, key: Tensor, mask: Any, scaling: float, **more: Any) -> None:
            stage, how = call.prompt.at(layer), {"scaling": scaling, **extras(more)}
            mask = square(mask)
            if layer in self.followed:
                q, k = (x[:, :, : stage.n] for x in (query, key))
                call.heads[layer] = Heads(q, k, valid=stage.valid, mask=mask, window=window, **how)
            if DecoderKeys(layer) in self.needs and DecoderKeys(layer) not in call.seen:
                call.seen[DecoderKeys(layer)] = key[:, :, : stage.n]
            need = DecoderAttention(layer)
            if need not in self.needs:
                return
            row = self.query_row(stage, call)[:, None]
            visible = mask_of_rows(row, stage, mask, window)
            seen = probabilities(rows_at(query, row), key[:, :, : stage.n], mask=visible, **how)
            call.seen[need] = seen[:, :, 0]

        return read

    def keys_alone(
        self, i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict
    ) -> None:
        """Record the keys that padded rows would have without padding.

        Needed where the model counts padding in its position ids. Attention does not depend on this
        shift of all positions, but methods that read keys do.
        """
        stage = call.prompt.at(i)
        where = stage.positions
        if not call.prefill or not call.padded_positions or where is None:
            return
        begin = gather_positions(where, stage.valid.long().argmax(1, keepdim=True))
        where = (where - begin + self.anatomy.family.position_offset).clamp(min=0)
        given = {**kw, "position_embeddings": self.rotary(module, hidden, where)}
        call.seen[DecoderKeys(i)] = next_heads(module, hidden, given, stage.valid, None, None).key

    def query_row(self, stage: Stage, call: DecoderCall) -> Tensor:
        """Column (B,) of the last prompt token."""
        return last_column(stage.valid)

    def idle(self, call: DecoderCall, cache: Any, q: int) -> bool:
        """Whether layers can process one new token without the hooks of this package.

        Hooks of every layer take a noticeable part of a decode step, so the check is made once per
        step.
        """
        prompt = call.prompt
        stages = (*prompt.stages, *prompt.detours.values())
        return (
            q == 1
            and type(cache) is DynamicCache
            and not self.windows
            and not prompt.cached
            and not any(stage.ragged or stage.shift is not None for stage in stages)
            and "flex" not in implementation(self.anatomy.layers[0].self_attn)
        )

    @cached_property
    def windows(self) -> bool:
        """Whether any layer has sliding-window attention."""
        return any(window_of(la.self_attn) is not None for la in self.anatomy.layers)

    def before_layer(self, i: int, call: DecoderCall, module: nn.Module, args: tuple, kw: dict):
        """Pre-hook of layer i: returns its changed arguments."""
        if call.prefill:
            return self._prefill(i, call, module, args[0], dict(kw))
        return self._decode(i, call, module, args[0], dict(kw))

    def _prefill(self, i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict):
        prompt = call.prompt
        for part in self.at.get(i, ()):
            before = prompt.stream(i)
            state = self.state(part, i, call, module, hidden, kw, before)
            state.notes = call.notes.setdefault(id(part), {})
            verdict = check_at_boundary(part, part.at_boundary(i, self.n, state), before.valid)
            if verdict is None:
                continue
            if isinstance(verdict, Soft):
                call.soften(verdict.log_weight, before)
                continue
            merge = as_merge(verdict, before)
            if isinstance(verdict, Merge):
                hidden = merge_columns(hidden, merge)
                call.merges.append((i, before, merge))
            stage, columns = self.after(i, call, before, merge, self.anatomy.packs(part.positions))
            if isinstance(verdict, Merge) or before.merged_into is not None:
                stage.merged_into = follow_merges(prompt.first, before, merge)
            hidden = rows_at(hidden, columns)
            if before.boundary == i and before is not prompt.first:
                prompt.stages.remove(before)
            prompt.stages.append(stage)
        hidden = self.detours.enter(i, call, module, hidden, kw)
        call.heads.pop(i - 1, None)
        stage = prompt.at(i)
        if stage is not prompt.first:
            kw = self._placed(stage, call, module, hidden, kw)
            kw["attention_mask"] = prefill_mask(stage, call, module, hidden, kw)
        if call.soft is not None:
            kw["attention_mask"] = mask = soft_mask(stage, call, module, hidden, kw)
            if mask.requires_grad and not hidden.requires_grad:
                # CUDA kernels compute the gradient of a mask only if the queries need one too.
                hidden = hidden.detach().requires_grad_()
        return (hidden,), kw

    def state(
        self,
        part: Part,
        i: int,
        call: DecoderCall,
        module: nn.Module,
        hidden: Tensor,
        kw: dict,
        stage: Stage,
    ) -> BoundaryState:
        """The state that a part gets of the hidden states `hidden` (B, N, D) that enter layer i."""
        window, own = window_of(module.self_attn), square(kw.get("attention_mask"))

        def given() -> dict[str, Any]:
            placed = self._placed(stage, call, module, hidden, kw)
            if self.ahead is not None:
                tables = placed["position_embeddings"]
                placed["position_embeddings"] = self.ahead(i, call, module, hidden, tables)
            return placed

        def attention(rows: Tensor) -> Tensor:
            visible = mask_of_rows(rows, stage, own, window, first=stage is not call.prompt.first)
            return next_attention(module, hidden, given(), rows, visible)

        def heads_ahead() -> Heads:
            mask = own
            if stage is not call.prompt.first:
                mask = square(prefill_mask(stage, call, module, hidden, kw))
            return next_heads(module, hidden, given(), stage.valid, mask, window)

        values: dict[Any, Any] = {}
        width = call.prompt.first.n
        for need, seen in call.seen.items():
            source = call.prompt.at(need.layer)
            values[need] = seen if source is stage else values_at_stage(seen, source, stage, width)
        for need, seen in call.vision_signals.items():
            at = stage.first_column[:, None].expand(-1, seen.shape[1], -1)
            values[need] = seen.gather(2, at).masked_fill(stage.item[:, None] < 0, 0)
        heads = call.heads.get(i - 1)
        if heads is not None:
            source = call.prompt.at(i - 1)
            values[DecoderHeads()] = (
                heads if source is stage else heads_at_stage(heads, source, stage, width)
            )
        labels = None
        if call.labels is not None:
            labels = call.labels.gather(1, stage.prompt_column).masked_fill(~stage.valid, -100)
        place, frame = places_of(call.prompt, stage)
        record = None
        if call.prompt.scores is not None:
            record = partial(column_scores, call.prompt.scores, part, i, stage)
        return BoundaryState(
            hidden=hidden.detach(),
            valid=stage.valid,
            visual=stage.item >= 0,
            item=stage.item,
            entered=call.prompt.entered,
            last=self.query_row(stage, call),
            labels=labels,
            attention=attention,
            signals=Signals(values, record=record),
            norm=self.anatomy.text.norm,
            heads=heads_ahead,
            places=lambda: (place, extents_of(call.prompt, stage)),
            frame=frame,
            place=place,
            counts=counts_of(call.prompt, stage),
        )

    def after(
        self, i: int, call: DecoderCall, before: Stage, merge: Merge, packed: bool
    ) -> tuple[Stage, Tensor]:
        """The stage after boundary i, and the columns of the stage before that it consists of."""
        kept = (merge.into == torch.arange(before.n, device=merge.into.device)) & before.valid
        held, lengths = _counted(kept, before)
        if any(n == 0 < m for n, m in zip(lengths, before.lengths, strict=True)):
            raise UnsupportedCall(
                f"A row without text would have no tokens left in decoder layer {i}; add text to "
                "its prompt, or use a method that keeps visual tokens in every layer."
            )
        ascending = (~kept).long().argsort(dim=1, stable=True)
        columns, valid = pad_front(ascending, lengths, before.right)
        reordered = None
        if merge.place is not None or before.reordered_column is not None:
            reordered = before.mask_column.gather(1, columns).masked_fill(~valid, 0)
        if merge.place is not None:
            last = torch.iinfo(merge.place.dtype).max
            order = merge.place.masked_fill(~kept, last).argsort(dim=1, stable=True)
            columns, _ = pad_front(order, lengths, before.right)
        positions = gather_positions(before.positions, columns)
        shift = before.shift
        if packed:
            first = call.prompt.first
            whole = untouched(columns, valid, before.valid)[:, None]
            anew = renumbered(valid, before.positions, self.anatomy.family.position_offset)
            positions = positions.where(whole, anew)
            shift = decode_shift(first.positions, first.valid, positions, valid)
            if first.shift is not None:
                shift = shift + first.shift
        stage = Stage(
            boundary=i,
            prompt_column=before.prompt_column.gather(1, columns),
            first_column=before.first_column.gather(1, columns),
            valid=valid,
            item=before.item.gather(1, columns).masked_fill(~valid, -1),
            token=before.token.gather(1, columns).masked_fill(~valid, -1),
            lengths=lengths,
            positions=positions,
            shift=shift,
            reordered_column=reordered,
            held=held,
            right=before.right,
        )
        return stage, columns

    def _placed(
        self, stage: Stage, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict
    ) -> dict[str, Any]:
        """Arguments of a layer with the position ids of a stage's columns."""
        if stage is call.prompt.first and call.prefill:
            return dict(kw)
        kw = {**kw, "position_embeddings": self._tables(stage, call, module, hidden, kw)}
        if kw.get("position_ids") is not None:
            where = stage.positions
            kw["position_ids"] = where if where.dim() == 2 else where[0]
        return kw

    def _tables(self, stage: Stage, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict):
        """Rotary tables (cos, sin) of a stage's columns, each (B, N, d)."""
        given = kw["position_embeddings"]
        if stage is call.prompt.first and call.prefill:
            return given
        key = (stage, self.layer_type(module))
        if key not in call.tables:
            call.tables[key] = self.rotary(module, hidden, stage.positions)
        return call.tables[key]

    def rotary(self, module: nn.Module, hidden: Tensor, positions: Tensor):
        """(cos, sin) for position ids, computed by the model's own rotary module."""
        positions = rotating(positions)
        if self._typed_rotary:
            return self.anatomy.text.rotary_emb(hidden, positions, self.layer_type(module))
        return self.anatomy.text.rotary_emb(hidden, positions)

    def layer_type(self, module: nn.Module) -> str | None:
        """Type of a layer in models whose layer types have different rotary tables, or None."""
        types = getattr(self.anatomy.text.config, "layer_types", None)
        return None if types is None else types[module.self_attn.layer_idx]

    def widen(self, call: DecoderCall, args: tuple, kw: dict) -> tuple[tuple, dict] | None:
        """Pre-hook of the rotary module in decode: compute the tables of all stages in one call.

        The number of kernel launches dominates a decode step, and each call of the module launches
        a dozen kernels.
        """
        if call.prefill or call.over or call.positions is None or call.idle:
            return None
        kw = {**dict(zip(self._rotary, args, strict=False)), **kw}
        given, kind = kw.get("position_ids"), kw.get("layer_type")
        if ("behind", kind) in call.tables or not self._steady or not call.prompt.shifts[0]:
            return None
        where = rotating(self._where(call))
        if given is None or given.dim() != where.dim() or given.shape[0] > where.shape[0]:
            return None
        kw["position_ids"] = torch.cat([given.expand(*where.shape[:-1], -1), where], -1)
        call.tables["asked", kind] = given.shape[-1]
        return (), kw

    def narrow(self, call: DecoderCall, args: tuple, kw: dict, output: Any):
        """Hook of the rotary module: split the result of `widen` into the model's part and ours."""
        kind = kw.get("layer_type")
        q = call.tables.pop(("asked", kind), None)
        if q is None:
            return None
        call.tables["behind", kind] = [x[..., q:, :] for x in output]
        return tuple(x[..., :q, :] for x in output)

    @property
    def _steady(self) -> bool:
        """Whether the rotary frequencies are independent of the largest position id."""
        kinds = getattr(self.anatomy.text.rotary_emb, "rope_type", None)
        kinds = kinds.values() if isinstance(kinds, dict) else [kinds]
        return not any(kind is None or "dynamic" in kind or kind == "longrope" for kind in kinds)

    def _where(self, call: DecoderCall) -> Tensor:
        """Position ids (..., B, q * S) of new columns in each of the S stages with a shift."""
        if ("where",) not in call.tables:
            positions, (each, shifts) = call.positions, call.prompt.shifts
            if positions.shape[-1] > 1:
                shifts = shifts.repeat(*[1] * (shifts.dim() - 1), positions.shape[-1])
                positions = positions.repeat_interleave(len(each), -1)
            call.tables[("where",)] = shifted(positions, shifts)
        return call.tables[("where",)]

    def _new(self, stage: Stage, call: DecoderCall, module: nn.Module, hidden: Tensor):
        """Position ids (..., B, q) of new columns in a stage, and their rotary tables."""
        each = call.prompt.shifts[0]
        number = next(j for j, shift in enumerate(each) if shift is stage.shift)
        own = slice(number, None, len(each))
        where = self._where(call)[..., own]
        kind = self.layer_type(module) if self._typed_rotary else None
        if ("behind", kind) in call.tables:
            cos, sin = call.tables["behind", kind]
            return where, (cos[..., own, :], sin[..., own, :])
        key = ("decode", stage, kind)
        if key not in call.tables:
            call.tables[key] = self.rotary(module, hidden, where)
        return where, call.tables[key]

    def _decode(self, i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict):
        stage = call.prompt.at(i)
        if stage is call.prompt.first and not call.prompt.detours:
            return (hidden,), kw
        # The model's mask fits the cache length of one layer; other layers may have other lengths.
        if stage.shift is not None and call.positions is not None:
            where, kw["position_embeddings"] = self._new(stage, call, module, hidden)
            if kw.get("position_ids") is not None:
                kw["position_ids"] = where if where.dim() == 2 else where[0]
        kw["attention_mask"] = decode_mask(i, call, module, hidden, kw)
        return (hidden,), kw


def _counted(kept: Tensor, stage: Stage) -> tuple[list[list[int]], list[int]]:
    """Kept columns of a stage, for each row and item, and for each row.

    `kept` (B, N) is bool. This is the only device sync of a boundary.
    """
    most = max(map(len, stage.held))
    counts = kept.new_zeros(len(kept), most + 1, dtype=torch.long)
    counts = counts.scatter_add(1, stage.item + 1, kept.long()).tolist()
    held = [row[1 : 1 + len(own)] for row, own in zip(counts, stage.held, strict=True)]
    return held, [sum(row) for row in counts]
