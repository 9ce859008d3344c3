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
from foveate.ops.attention import Heads
from foveate.parts import BoundaryState, LayersPart, Merge
from foveate.signals import DecoderAttention, DecoderHeads, DecoderKeys, Signals


@dataclass
class Pass:
    """One forward call of the decoder: what all its layer hooks share.

    prefill: stages are being made; otherwise they are read. labels (B, L): training targets.
    positions: ids of the new columns as the caller counts them, in a decode step. behind (B, new):
    which columns behind the prompt are no padding, None for all. seen: signals of finished layers,
    (B, H, N, ...). heads: of finished layers, until the boundary behind them. merges: boundary,
    stage that reached it, what merged there. notes: of each part, by its id. tables, masks: what
    layers behind a boundary share, made once.
    """

    prompt: Prompt
    prefill: bool
    labels: Tensor | None = None
    positions: Tensor | None = None
    behind: Tensor | None = None
    candidates: int = 0
    seen: dict[DecoderAttention | DecoderKeys, Tensor] = field(default_factory=dict)
    heads: dict[int, Heads] = field(default_factory=dict)
    merges: list[tuple[int, Stage, Merge]] = field(default_factory=list)
    notes: dict[int, dict[str, Tensor]] = field(default_factory=dict)
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
        self.followed = {
            k - 1 for p in parts if DecoderHeads() in p.needs for k in p.boundaries(self.n) if k
        }
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
        for layer in {need.layer for need in self.needs} | self.followed:
            yield layer, self._reader(layer, call)

    def _reader(self, layer: int, call: Pass) -> Callable[..., None]:
        def read(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, **_) -> None:
            stage = call.prompt.at(layer)
            if layer in self.followed:
                q, k = (x[:, :, : stage.n].detach() for x in (query, key))
                call.heads[layer] = Heads(q, k, scaling, stage.valid, _square(mask))
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
            state.notes = call.notes.setdefault(id(part), {})
            verdict = part.at_boundary(i, self.n, state)
            if verdict is None:
                continue
            merge = _settled(verdict, before)
            if isinstance(verdict, Merge):
                hidden = merged(hidden, merge)
                call.merges.append((i, before, merge))
            stage, columns = self._next(i, call, before, merge, part.positions == "packed")
            if isinstance(verdict, Merge) or before.holder is not None:
                stage.holder = _holder(prompt.first, before, merge)
            hidden = _columns(hidden, columns)
            if before.boundary == i and before is not prompt.first:
                prompt.stages.remove(before)
            prompt.stages.append(stage)
        call.heads.pop(i - 1, None)
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

        def heads_ahead() -> Heads:
            first = stage is call.prompt.first
            mask = kw.get("attention_mask")
            mask = mask if first else self._prefill_mask(stage, call, module, hidden, kw)
            return next_heads(module, hidden, tables, stage.valid, _square(mask))

        values: dict[Any, Any] = {}
        for need, seen in call.seen.items():
            source = call.prompt.at(need.layer)
            values[need] = seen if source is stage else _realign(seen, source, stage)
        heads = call.heads.get(i - 1)
        if heads is not None:
            source = call.prompt.at(i - 1)
            values[DecoderHeads()] = heads if source is stage else _moved(heads, source, stage)
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
            heads=heads_ahead,
        )

    def _next(
        self, i: int, call: Pass, before: Stage, merge: Merge, packed: bool
    ) -> tuple[Stage, Tensor]:
        """The stage behind boundary i, and which of its predecessor's columns it took."""
        right = bool((~before.valid[:, -1]).any())
        kept = (merge.into == torch.arange(before.n, device=merge.into.device)) & before.valid
        rows = [row.nonzero()[:, 0] for row in kept]
        if merge.place is not None:
            rows = [r[p[r].argsort(stable=True)] for r, p in zip(rows, merge.place, strict=True)]
        columns, valid = pad_rows(rows, 0, right)
        sight = None
        if merge.place is not None or before.sight is not None:
            old = before.local if before.sight is None else before.sight
            sight = pad_rows([o[r.sort().values] for o, r in zip(old, rows, strict=True)], 0, right)
            sight = sight[0]
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
            sight=sight,
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
            short = _both_ways(mask, stage.local if stage.sight is None else stage.sight)
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
    with torch.no_grad():
        query, key = _projected(layer, hidden, tables, rows)
        visible = _causal(rows, valid)[:, None]
        return probabilities(query, key, layer.self_attn.scaling, visible)


def next_heads(
    layer: nn.Module,
    hidden: Tensor,
    tables: tuple[Tensor, Tensor],
    valid: Tensor,
    mask: Tensor | None,
) -> Heads:
    """Queries and keys that `layer` would make of its input; the layer itself does not run."""
    with torch.no_grad():
        rows = torch.arange(hidden.shape[1], device=hidden.device).expand(len(hidden), -1)
        query, key = _projected(layer, hidden, tables, rows)
        return Heads(query, key, layer.self_attn.scaling, valid, mask)


def _projected(
    layer: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Queries (B, H, R, d) of columns `rows` (B, R) and keys (B, Hkv, N, d) of all columns."""
    attention = layer.self_attn
    b, n, _ = hidden.shape
    normed = layer.input_layernorm(hidden)
    asked = normed if rows.shape[1] == n else _columns(normed, rows)
    query = attention.q_proj(asked).view(b, rows.shape[1], -1, attention.head_dim)
    key = attention.k_proj(normed).view(b, n, -1, attention.head_dim)
    if getattr(attention, "q_norm", None) is not None:
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key = query.transpose(1, 2), key.transpose(1, 2)
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    cos, sin = (t.expand(b, -1, -1) for t in tables)
    query, _ = rotate(query, query, _columns(cos, rows), _columns(sin, rows))
    _, key = rotate(key, key, cos, sin)
    return query, key


def merged(x: Tensor, merge: Merge) -> Tensor:
    """Weighted sums (B, N, D) of columns, at the columns that take them in."""
    b, n, d = x.shape
    slot = merge.into.masked_fill(merge.into < 0, n)[..., None].expand(-1, -1, d)
    # Sums of many states lose too much in half precision.
    total = torch.zeros(b, n + 1, d, device=x.device)
    total = total.scatter_add(1, slot, x.float() * merge.weight[..., None].float())
    return total[:, :n].to(x.dtype)


def _settled(verdict: Tensor | Merge, stage: Stage) -> Merge:
    """What a part said of a stage's columns, with text and padding as they are."""
    fixed = (stage.item < 0) | ~stage.valid
    own = torch.arange(stage.n, device=fixed.device).expand_as(stage.item)
    if isinstance(verdict, Tensor):
        return Merge(own.masked_fill(~(verdict | fixed), -1), fixed.new_ones(1, 1).expand_as(fixed))
    into = torch.where(fixed, own, verdict.into)
    return Merge(into, verdict.weight.masked_fill(fixed, 1), verdict.place)


def _holder(first: Stage, before: Stage, merge: Merge) -> Tensor:
    """Column of the first stage that now stands for each of its columns, (B, N), -1 for none."""
    held = torch.arange(first.n, device=merge.into.device).expand_as(first.index)
    held = held if before.holder is None else before.holder
    taken = before.local.gather(1, merge.into.clamp(min=0)).masked_fill(merge.into < 0, -1)
    goes = held.new_full((len(held), first.n + 1), -1)
    goes.scatter_(1, before.local.masked_fill(~before.valid, first.n), taken)
    goes[:, -1] = -1
    return goes.gather(1, held.masked_fill(held < 0, first.n))


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


def _moved(heads: Heads, source: Stage, stage: Stage) -> Heads:
    """Queries and keys of the columns of a later stage."""
    steps = torch.arange(source.n, device=source.local.device).expand(len(source.local), 1, -1)
    index = _realign(steps, source, stage)[:, 0]
    return Heads(
        _realign(heads.query, source, stage),
        _realign(heads.key, source, stage),
        heads.scaling,
        stage.valid,
        None if heads.mask is None else _both_ways(heads.mask, index),
    )


def _both_ways(mask: Tensor, index: Tensor) -> Tensor:
    """Rows and columns `index` (B, N) of a mask (B or 1, H, L, W)."""
    mask = mask.expand(len(index), -1, -1, -1)
    rows = index[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
    columns = index[:, None, None, :].expand(-1, mask.shape[1], index.shape[1], -1)
    return mask.gather(2, rows).gather(3, columns)


def _square(mask: Any) -> Tensor | None:
    """A mask that says for every row what it sees; None for one that only marks padding."""
    return mask if isinstance(mask, Tensor) and mask.dim() == 4 else None


def _refuse_blocks(kind: str) -> None:
    if "flex" in kind:
        raise UnsupportedCall(
            "FlexAttention's block masks can't be shortened between decoder layers; "
            "use attn_implementation='sdpa' with methods that act inside the LLM."
        )
