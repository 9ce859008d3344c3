"""Layers-stage parts at work: hooks on decoder layers that shorten the stream between them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.anatomy import Anatomy
from foveate.engine.prompt import (
    Prompt,
    Stage,
    decode_shift,
    gather_positions,
    last_column,
    pad_rows,
    renumbered,
    shifted,
)
from foveate.engine.taps import implementation, probabilities
from foveate.errors import InvalidParameter, UnsupportedCall
from foveate.parts import BoundaryState, LayersPart
from foveate.signals import DecoderAttention, DecoderKeys, Signals


@dataclass
class Pass:
    """One forward call of the decoder: what all its layer hooks share.

    prefill: stages are being made; otherwise they are read. labels (B, L): training targets.
    positions: ids of the new columns as the caller counts them, in a decode step. behind (B, new):
    which columns behind the prompt are no padding, None for all. seen: signals of finished layers,
    (B, H, N, ...). tables, masks: what layers behind a boundary share, made once.
    """

    prompt: Prompt
    prefill: bool
    labels: Tensor | None = None
    positions: Tensor | None = None
    behind: Tensor | None = None
    candidates: int = 0
    seen: dict[DecoderAttention | DecoderKeys, Tensor] = field(default_factory=dict)
    tables: dict[tuple, Any] = field(default_factory=dict)
    masks: dict[tuple, Any] = field(default_factory=dict)


class Boundaries:
    """The layers parts of one attachment, by the boundary at which they act."""

    def __init__(self, anatomy: Anatomy, parts: list[LayersPart]):
        self.anatomy = anatomy
        self.n = len(anatomy.layers)
        self.at: dict[int, list[LayersPart]] = {}
        for part in parts:
            for k in part.boundaries(self.n):
                if not 0 <= k < self.n:
                    raise InvalidParameter(
                        f"Boundary {k} lies outside a decoder of {self.n} layers; "
                        f"use 0 to {self.n - 1}."
                    )
                self.at.setdefault(k, []).append(part)
        self.needs = list(
            dict.fromkeys(
                n for p in parts for n in p.needs if isinstance(n, DecoderAttention | DecoderKeys)
            )
        )
        for need in self.needs:
            if not 0 <= need.layer < self.n:
                raise InvalidParameter(
                    f"Decoder layer {need.layer} does not exist; use 0 to {self.n - 1}."
                )
        rotary = inspect.signature(anatomy.text.rotary_emb.forward).parameters
        self._typed_rotary = "layer_type" in rotary

    def __bool__(self) -> bool:
        return bool(self.at)

    @property
    def start(self) -> int:
        """The first boundary."""
        return min(self.at)

    def readers(self, call: Pass) -> Iterator[tuple[int, Callable[..., None]]]:
        """Per layer that parts want to see, what records it; a layer can be tapped once only."""
        for layer in {need.layer for need in self.needs}:
            yield layer, self._reader(layer, call)

    def _reader(self, layer: int, call: Pass) -> Callable[..., None]:
        def read(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, **_) -> None:
            stage = call.prompt.at(layer)
            if DecoderKeys(layer) in self.needs:
                call.seen[DecoderKeys(layer)] = key[:, :, : stage.n].detach()
            need = DecoderAttention(layer)
            if need not in self.needs:
                return
            rows = self.query_row(stage, call)
            picked = query.gather(
                2, rows[:, None, None, None].expand(-1, query.shape[1], 1, query.shape[3])
            )
            visible = _causal(rows[:, None], stage.valid)[:, None]
            call.seen[need] = probabilities(picked, key[:, :, : stage.n], scaling, visible)[:, :, 0]

        return read

    def query_row(self, stage: Stage, call: Pass) -> Tensor:
        """Column (B,) of the last prompt token, candidates of assisted decoding left out."""
        return last_column(stage.valid) - call.candidates

    def before_layer(self, i: int, call: Pass, module: nn.Module, args: tuple, kw: dict):
        """Pre-hook of layer i: the arguments that this layer shall see."""
        if call.prefill:
            return self._prefill(i, call, module, args[0], dict(kw))
        return self._decode(i, call, module, args[0], dict(kw))

    def _prefill(self, i: int, call: Pass, module: nn.Module, hidden: Tensor, kw: dict):
        prompt = call.prompt
        for part in self.at.get(i, ()):
            before = prompt.at(i)
            state = self._state(i, call, module, hidden, kw, before)
            keep = part.at_boundary(i, self.n, state)
            if keep is None:
                continue
            keep = (keep | (before.item < 0)) & before.valid
            stage, columns = self._next(i, call, before, keep, part.positions == "packed")
            hidden = _columns(hidden, columns)
            if before.boundary == i and before is not prompt.first:
                prompt.stages.remove(before)
            prompt.stages.append(stage)
        stage = prompt.at(i)
        if stage is prompt.first:
            return (hidden,), kw
        kw["position_embeddings"] = self._tables(stage, call, module, hidden, kw)
        if kw.get("position_ids") is not None:
            where = stage.positions
            kw["position_ids"] = where if where.dim() == 2 else where[0]
        kw["attention_mask"] = self._prefill_mask(stage, call, module, hidden, kw)
        return (hidden,), kw

    def _state(
        self, i: int, call: Pass, module: nn.Module, hidden: Tensor, kw: dict, stage: Stage
    ) -> BoundaryState:
        tables = self._tables(stage, call, module, hidden, kw)

        def attention(rows: Tensor) -> Tensor:
            return next_attention(module, hidden, tables, rows, stage.valid)

        values = {}
        for need, seen in call.seen.items():
            source = call.prompt.at(need.layer)
            values[need] = seen if source.n == stage.n else _realign(seen, source, stage)
        labels = None
        if call.labels is not None:
            labels = call.labels.gather(1, stage.index).masked_fill(~stage.valid, -100)
        return BoundaryState(
            hidden=hidden.detach(),
            valid=stage.valid,
            visual=stage.item >= 0,
            item=stage.item,
            entered=call.prompt.entered,
            last=self.query_row(stage, call),
            labels=labels,
            attention=attention,
            signals=Signals(values),
            norm=self.anatomy.text.norm,
        )

    def _next(
        self, i: int, call: Pass, before: Stage, keep: Tensor, packed: bool
    ) -> tuple[Stage, Tensor]:
        """The stage behind boundary i, and which of its predecessor's columns it took."""
        right = bool((~before.valid[:, -1]).any())
        rows = [row.nonzero()[:, 0] for row in keep]
        columns, valid = pad_rows(rows, 0, right)
        positions = gather_positions(before.positions, columns)
        shift = before.shift
        if packed:
            first = call.prompt.first
            positions = renumbered(valid, before.positions, self.anatomy.family.position_offset)
            shift = decode_shift(first.positions, first.valid, positions, valid)
            if first.shift is not None:
                shift = shift + first.shift
        stage = Stage(
            boundary=i,
            index=before.index.gather(1, columns),
            local=before.local.gather(1, columns),
            valid=valid,
            item=before.item.gather(1, columns).masked_fill(~valid, -1),
            slot=before.slot.gather(1, columns).masked_fill(~valid, -1),
            lengths=[len(r) for r in rows],
            positions=positions,
            shift=shift,
        )
        return stage, columns

    def _tables(self, stage: Stage, call: Pass, module: nn.Module, hidden: Tensor, kw: dict):
        """Rotary (cos, sin) of a stage's columns, each (B, N, d)."""
        given = kw["position_embeddings"]
        if stage is call.prompt.first and call.prefill:
            return given
        key = (id(stage), self._layer_type(module))
        if key not in call.tables:
            call.tables[key] = self.rotary(module, hidden, stage.positions)
        return call.tables[key]

    def rotary(self, module: nn.Module, hidden: Tensor, positions: Tensor):
        """(cos, sin) that the model's own rotary module gives for position ids."""
        if positions.dim() == 3 and positions.shape[0] == 4:
            positions = positions[1:]
        if self._typed_rotary:
            return self.anatomy.text.rotary_emb(hidden, positions, self._layer_type(module))
        return self.anatomy.text.rotary_emb(hidden, positions)

    def _layer_type(self, module: nn.Module) -> str | None:
        types = getattr(self.anatomy.text.config, "layer_types", None)
        return None if types is None else types[module.self_attn.layer_idx]

    def _prefill_mask(self, stage: Stage, call: Pass, module: nn.Module, hidden: Tensor, kw: dict):
        mask = kw.get("attention_mask")
        kind = implementation(module.self_attn)
        _refuse_blocks(kind)
        if "flash" in kind:
            return stage.valid.long() if mask is not None or stage.ragged else None
        if mask is None and not stage.ragged:
            return None
        key = (id(stage), id(mask))
        if key in call.masks:
            return call.masks[key]
        b, n = stage.valid.shape
        cache = kw.get("past_key_values")
        i = module.self_attn.layer_idx
        wide = n if cache is None else max(n, cache.get_mask_sizes(n, i)[0])
        own = torch.eye(n, dtype=torch.bool, device=hidden.device)
        if mask is None:
            steps = torch.arange(n, device=hidden.device)
            short = (steps[:, None] >= steps[None]).expand(b, 1, n, n)
        else:
            index = stage.local
            short = mask.expand(b, -1, -1, -1)
            short = short.gather(
                2, index[:, None, :, None].expand(-1, short.shape[1], -1, mask.shape[3])
            )
            short = short.gather(3, index[:, None, None, :].expand(-1, short.shape[1], n, -1))
        visible = stage.valid[:, None, None, :] | own
        if short.dtype == torch.bool:
            short = (short & stage.valid[:, None, None, :]) | own
            short = nn.functional.pad(short, (0, wide - n), value=False)
        else:
            lowest = torch.finfo(short.dtype).min
            short = short.masked_fill(~visible, lowest).masked_fill(own, 0)
            short = nn.functional.pad(short, (0, wide - n), value=lowest)
        call.masks[key] = short
        return short

    def _decode(self, i: int, call: Pass, module: nn.Module, hidden: Tensor, kw: dict):
        stage = call.prompt.at(i)
        if stage is call.prompt.first:
            return (hidden,), kw
        if stage.shift is not None and call.positions is not None:
            where = shifted(call.positions, stage.shift)
            key = ("decode", id(stage), self._layer_type(module))
            if key not in call.tables:
                call.tables[key] = self.rotary(module, hidden, where)
            kw["position_embeddings"] = call.tables[key]
            if kw.get("position_ids") is not None:
                kw["position_ids"] = where if where.dim() == 2 else where[0]
        kw["attention_mask"] = self._decode_mask(i, stage, call, module, hidden, kw)
        return (hidden,), kw

    def _decode_mask(
        self, i: int, stage: Stage, call: Pass, module: nn.Module, hidden: Tensor, kw: dict
    ) -> Tensor | None:
        cache, q = kw["past_key_values"], hidden.shape[1]
        kind = implementation(module.self_attn)
        _refuse_blocks(kind)
        window = getattr(module.self_attn, "sliding_window", None)
        held = cache.layers[i].get_mask_sizes(q)[0]
        new = seen_columns_behind(cache, i, stage) + q
        width = stage.n + new
        padded = stage.ragged or call.behind is not None
        plain = not padded and window is None and held == width
        if plain and (q == 1 or "flash" in kind) and kw.get("attention_mask") is None:
            return None
        key = (id(stage), window, kind, held, new)
        if key in call.masks:
            return call.masks[key]
        b, device = hidden.shape[0], hidden.device
        first = call.prompt.first
        behind = torch.arange(first.n, first.n + new, device=device).expand(b, -1)
        column = torch.cat([stage.local, behind], 1)
        later = stage.valid.new_ones(b, new) if call.behind is None else call.behind[:, :new]
        alive = torch.cat([stage.valid, later], 1)
        column, alive = column[:, -held:], alive[:, -held:]
        spare = held - column.shape[1]
        if spare > 0:
            column = nn.functional.pad(column, (0, spare), value=first.n + new)
            alive = nn.functional.pad(alive, (0, spare), value=False)
        if "flash" in kind:
            mask = alive.long()
        else:
            query = torch.arange(first.n + new - q, first.n + new, device=device)[None, :, None]
            mask = alive[:, None, :] & (column[:, None, :] <= query)
            if window is not None:
                mask = mask & (query - column[:, None, :] < window)
            mask = mask[:, None]
            if kind == "eager":
                lowest = torch.finfo(hidden.dtype).min
                mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, lowest)
        call.masks[key] = mask
        return mask


def seen_columns_behind(cache, i: int, stage: Stage) -> int:
    """Columns that layer i took in after the prompt."""
    return int(cache.layers[i].get_seq_length()) - stage.n


def next_attention(
    layer: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor], rows: Tensor, valid: Tensor
) -> Tensor:
    """Attention that `layer` would give columns `rows` (B, R) of its input, (B, H, R, N), float32.

    Only the asked rows are projected to queries; the layer itself does not run.
    """
    attention = layer.self_attn
    b, n, _ = hidden.shape
    with torch.no_grad():
        normed = layer.input_layernorm(hidden)
        asked = _columns(normed, rows)
        query = attention.q_proj(asked).view(b, rows.shape[1], -1, attention.head_dim)
        key = attention.k_proj(normed).view(b, n, -1, attention.head_dim)
        if getattr(attention, "q_norm", None) is not None:
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key = query.transpose(1, 2), key.transpose(1, 2)
        rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
        cos, sin = (t.expand(b, -1, -1) for t in tables)
        query, _ = rotate(query, query, _columns(cos, rows), _columns(sin, rows))
        _, key = rotate(key, key, cos, sin)
        return probabilities(query, key, attention.scaling, _causal(rows, valid)[:, None])


def _causal(rows: Tensor, valid: Tensor) -> Tensor:
    """(B, R, N) bool: columns that each of `rows` (B, R) may see."""
    steps = torch.arange(valid.shape[1], device=valid.device)
    return (steps <= rows[..., None]) & valid[:, None, :]


def _columns(x: Tensor, index: Tensor) -> Tensor:
    x = x.expand(index.shape[0], -1, -1)
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _realign(seen: Tensor, source: Stage, stage: Stage) -> Tensor:
    """Values (B, H, N_source, ...) at the columns of a later stage."""
    where = torch.zeros_like(source.local[:, :1]).expand(-1, int(source.local.max()) + 1).clone()
    steps = torch.arange(source.n, device=where.device).expand_as(source.local)
    where.scatter_(1, source.local, steps)
    index = where.gather(1, stage.local)
    index = index.view(len(index), 1, -1, *[1] * (seen.dim() - 3))
    return seen.gather(2, index.expand(-1, seen.shape[1], -1, *seen.shape[3:]))


def _refuse_blocks(kind: str) -> None:
    if "flex" in kind:
        raise UnsupportedCall(
            "FlexAttention's block masks can't be shortened between decoder layers; "
            "use attn_implementation='sdpa' with methods that act inside the LLM."
        )
