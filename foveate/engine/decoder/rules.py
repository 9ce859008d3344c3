"""Runs `RulePart`s: changes how decoder layers compute, in prefill and in decode."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveate.attention_call import AttentionCall, Columns, MLPCall, Seam, Whole, chained, unrecorded
from foveate.engine.anatomy import Anatomy
from foveate.engine.attention_taps import (
    Kernel,
    Reader,
    extras,
    implementation,
    known,
    plain,
    replacing_attention,
)
from foveate.engine.decoder.block_attention import in_blocks
from foveate.engine.decoder.boundaries import Boundaries
from foveate.engine.decoder.checkpointing import checkpointed, opened_in_recomputation
from foveate.engine.decoder.column_facts import fitted, joined, new_columns, stage_columns, whole
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.decoder.lookahead import rotates
from foveate.engine.decoder.partial_mlp import mlp_by_neurons
from foveate.engine.decoder.windows import window_of
from foveate.engine.prompt.positions import shifted
from foveate.engine.prompt.prompt import Stage
from foveate.engine.scores import column_scores
from foveate.errors import InvalidParameter, UnsupportedCall, UnsupportedModel
from foveate.parts import RulePart

Tables = tuple[Tensor, Tensor]


class Rules:
    """The rules of one attachment, by layer."""

    def __init__(self, anatomy: Anatomy, parts: list[RulePart], boundaries: Boundaries):
        self.anatomy = anatomy
        self.boundaries = boundaries
        n = len(anatomy.layers)
        self.at: dict[int, list[RulePart]] = {}
        for part in parts:
            for i in part.layers(n):
                if not 0 <= i < n:
                    raise InvalidParameter(
                        f"Layer {i} is out of range: the model has {n} decoder layers (0-{n - 1})."
                    )
                self.at.setdefault(i, []).append(part)
        for i in self.at:
            self._refuse_together(i)
        self.parts = tuple(p for p in parts if any(p in held for held in self.at.values()))
        self.textual = any(p.textual for p in self.parts)
        # By layer, the ids of the rules that change rotation.
        self.turning = {
            i: tuple(id(p) for p in held if p in [*self._at(i, "place"), *self._at(i, "raw")])
            for i, held in self.at.items()
        }
        # By layer: whether the model itself applies a rotary embedding.
        self._rotates: dict[int, bool] = {}
        if self.at:
            boundaries.ahead = self.ahead

    def __bool__(self) -> bool:
        return bool(self.at)

    def _refuse_together(self, i: int) -> None:
        """Raise where rules of layer i can't be combined."""
        asked = self._at(i, "attend")
        for part in asked:
            name = type(part.owner).__name__
            alike = [p for p in asked if type(p) is type(part)]
            if any(p.owner is not part.owner for p in alike) or asked.count(part) > 1:
                raise InvalidParameter(f"{name} acts twice in layer {i}; attach it once.")
            others = {id(p): p for p in (*asked, *self._at(i, "place")) if p is not part}
            if part.virtual and others:
                other = type(next(iter(others.values())).owner).__name__
                raise InvalidParameter(
                    f"{name} and {other} can't be combined in layer {i}: {name} attends to tokens "
                    f"that the layer does not have, and {other} does not support that; attach "
                    "one of them."
                )

    def _at(self, i: int, name: str, prefill: bool = True) -> list[RulePart]:
        """Rules of layer i that override the method `name`."""
        bare = getattr(RulePart, name)
        held = self.at.get(i, ())
        return [
            p for p in held if getattr(type(p), name) is not bare and (prefill or not p.prompt_only)
        ]

    def enter(
        self,
        call: DecoderCall,
        readers: dict[int, Reader],
        shadows: dict[int, Any],
        stack: ExitStack,
    ) -> set[int]:
        """Surround layers until the stack closes; return those with changed attention.

        Readers of these layers run inside.
        """
        attended = {i for i in self.at if self._at(i, "attend", call.prefill)}
        for i in attended | {i for i in self.at if self._at(i, "feed", call.prefill)}:
            layer = self.anatomy.layers[i]
            inside = partial(self._inside, i, call, readers.get(i), shadows)
            again = checkpointed(layer)
            stack.enter_context(opened_in_recomputation(layer, inside) if again else inside())
        return attended

    @contextmanager
    def _inside(
        self, i: int, call: DecoderCall, reader: Reader | None, shadows: dict[int, Any]
    ) -> Iterator[None]:
        """While open, the rules of layer i compute its attention and its MLP."""
        layer, feeding = self.anatomy.layers[i], self._at(i, "feed", call.prefill)
        with ExitStack() as stack:
            if self._at(i, "attend", call.prefill):
                around = partial(self._attend, i, call, reader)
                stack.enter_context(replacing_attention(layer.self_attn, around, shadows))
            if feeding:
                answer = partial(self._feed, i, call, feeding)
                stack.enter_context(_replacing_forward(layer.mlp, answer))
            yield

    def before_layer(self, i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict):
        """Arguments of layer i with the rules' rotary tables; None where they are unchanged."""
        given = call.tables["turn", i] = kw["position_embeddings"]
        if not self.turning[i]:
            return None
        if i not in self._rotates and self.raw(i):
            rotate = partial(_rotate, module.self_attn)
            self._rotates[i] = rotates(module, hidden, kw, rotate)
        key = ("tables", self.turning[i], id(call.prompt.at(i)), id(given))
        if key not in call.tables:
            # The entry keeps `given` alive, so that no other object can get its id.
            call.tables[key] = given, *self._tables(i, call, module, hidden, given)
        _, call.tables["turn", i], tables = call.tables[key]
        return None if tables is None else {**kw, "position_embeddings": tables}

    def _tables(
        self, i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, given: Tables
    ) -> tuple[Tables, Tables | None]:
        """Rotary tables for the rules' position ids, and those that layer i gets.

        They differ where columns are not rotated. None where the layer's tables are unchanged.
        """
        columns = self._queries(i, call, hidden.shape[1])
        where, raw = self._placed(i, call, columns)
        moved = where is not columns.positions
        turn = self._turn(i, call, module, hidden, columns) if moved else given
        if raw is None:
            return turn, turn if moved else None
        cos, sin = (t.expand(len(raw), -1, -1) for t in turn)
        return turn, (cos.masked_fill(raw[..., None], 1), sin.masked_fill(raw[..., None], 0))

    def ahead(
        self, i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, tables: Tables
    ) -> Tables:
        """Rotary tables of layer i for parts that compute its attention before it runs."""
        if i not in self.at:
            return tables
        columns = stage_columns(call.prompt, call.prompt.at(i))
        where, raw = self._placed(i, call, columns)
        if raw is not None and bool(raw.any()):
            raise UnsupportedCall(
                f"A method leaves tokens of layer {i} unrotated, so the layer's attention can't be "
                "computed in advance; use a method that reads the attention of earlier layers."
            )
        if where is columns.positions:
            return tables
        return self._turn(i, call, module, hidden, columns)

    def _turn(
        self, i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, columns: Columns
    ) -> Tables:
        """Rotary tables of columns at the rules' position ids."""
        kind = self.boundaries.layer_type(module)
        key = ("rules", *map(id, self.at[i]), id(columns), kind)
        if key not in call.tables:
            where, _ = self._placed(i, call, columns)
            call.tables[key] = self.boundaries.rotary(module, hidden, where)
        return call.tables[key]

    def raw(self, i: int) -> bool:
        """Whether a rule leaves columns of layer i unrotated."""
        return bool(self._at(i, "raw"))

    def _placed(self, i: int, call: DecoderCall, columns: Columns):
        """Position ids and unrotated columns, computed once for layers with the same columns."""
        key = ("placed", *map(id, self.at[i]), id(columns))
        if key not in call.tables:
            where, raw = columns.positions, None
            for part in self.at[i]:
                notes = call.prompt.notes.setdefault(id(part.owner), {})
                now = part.place(replace(columns, positions=where), notes)
                if now is not None:
                    where = now.expand(columns.positions.shape) if now.dim() == 2 else now
                left = part.raw(columns)
                if left is not None:
                    raw = left if raw is None else raw | left
            call.tables[key] = where, raw
        return call.tables[key]

    def _queries(self, i: int, call: DecoderCall, q: int) -> Columns:
        columns = self._behind(i, call, q)
        if columns is None:
            return stage_columns(call.prompt, call.prompt.at(i))
        key = ("rows", id(columns))
        if key not in call.tables:
            n = columns.valid.shape[1]
            index = torch.arange(n - q, n, device=columns.valid.device)
            call.tables[key] = columns.take(index.expand(len(columns.valid), -1))
        return call.tables[key]

    def _behind(self, i: int, call: DecoderCall, q: int) -> Columns | None:
        """Facts of the columns after the prompt."""
        if call.prefill:
            return None
        stage = call.prompt.at(i)
        key = ("behind", id(stage), q)
        if key not in call.tables:
            where = shifted(call.positions, stage.shift)
            new = call.start + q
            call.tables[key] = new_columns(call.prompt, stage, q, new, call.behind, where)
        return call.tables[key]

    def _keys(self, i: int, call: DecoderCall, q: int, width: int) -> Columns:
        stage = call.prompt.cached.get(i) or call.prompt.at(i)
        key = ("keys", id(stage), q, width)
        if key not in call.tables:
            columns, new = stage_columns(call.prompt, stage), self._behind(i, call, q)
            if new is not None:
                columns = joined(columns, new)
            call.tables[key] = fitted(columns, width)
        return call.tables[key]

    def _attend(
        self,
        i: int,
        call: DecoderCall,
        reader: Reader | None,
        kernel: Kernel,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **kw: Any,
    ) -> tuple[Tensor, Tensor | None]:
        module = self.anatomy.layers[i].self_attn
        parts = self._at(i, "attend", call.prefill)
        q, wide = query.shape[2], key.shape[2]
        kind = implementation(module)
        weights: list[Tensor | None] = []
        unread = [] if reader is None else [reader]

        def last(attending: AttentionCall) -> Tensor:
            more = {**kw, "scaling": attending.scaling}
            # Only a call with all columns in their order matches the layer's position ids.
            if not attending.entire:
                more.pop("position_ids", None)
            elif unread:
                unread.pop()(attending.query, attending.key, attending.mask, **more)
            if attending.full:
                more["is_causal"] = False
            given = attending.query, attending.key, attending.value
            if kind != "eager":
                # Fused kernels need equal head widths, or fall back to the full attention map.
                given = _padded_to_one_width(*given)
            out, seen = kernel(*given, attending.mask, **more)
            weights.append(seen)
            return out[..., : attending.value.shape[-1]]

        stage = call.prompt.at(i)
        queries, keys = self._queries(i, call, q), self._keys(i, call, q, wide)
        cos, sin = self._expanded(call, call.tables["turn", i], len(query))
        still = not self._rotates.get(i, True)
        start = AttentionCall(
            query=query,
            key=key,
            value=value,
            mask=mask,
            scaling=kw["scaling"],
            queries=queries,
            keys=keys,
            cos=cos,
            sin=sin,
            layer=i,
            layers=self.boundaries.n,
            prefill=call.prefill,
            window=window_of(module),
            **extras(kw),
            notes=self._notes(call, parts[0]),
            record=_recorder(i, call, parts[0]),
            seam=Seam(
                kind=kind,
                causal=kind != "eager" and getattr(module, "is_causal", True),
                rotate=_unrotated if still else partial(_rotate, module),
                tables=partial(self.boundaries.rotary, self.anatomy.layers[i], query),
                whole=partial(self._whole, i, call, stage, q, wide),
                account=partial(_account, call),
                refuse=partial(_refuse, kind),
                blocks=in_blocks,
                memo=call.tables,
                own=(queries, keys),
                alone=len(parts) == 1 and reader is None and known(kind) and plain(kw),
                still=still,
            ),
        )
        steps = [partial(self._attend_part, p, call) for p in parts]
        out = chained(steps, last)(start)
        if unread:
            if self.raw(i):
                raise UnsupportedCall(
                    f"The attention of layer {i} can't be read while another method computes it in "
                    "blocks; attach the methods one at a time."
                )
            unread.pop()(query, key, mask, **kw)
        return out, weights[0] if len(weights) == 1 else None

    def _expanded(self, call: DecoderCall, tables: Tables, b: int) -> Tables:
        """Rotary tables of all rows, the same objects for all layers that share them."""
        key = ("expanded", id(tables))
        if key not in call.tables:
            cos, sin = (t.expand(b, -1, -1) for t in tables)
            call.tables[key] = tables, (cos, sin)
        return call.tables[key][1]

    def _notes(self, call: DecoderCall, part: RulePart) -> dict[str, Tensor]:
        return call.prompt.notes.setdefault(id(part.owner), {})

    def _attend_part(
        self, part: RulePart, call: DecoderCall, attending: AttentionCall, proceed
    ) -> Tensor:
        notes = self._notes(call, part)
        own = attending
        if attending.notes is not notes:
            own = replace(attending, notes=notes, record=_recorder(attending.layer, call, part))
        return part.attend(own, proceed)

    def _whole(self, i: int, call: DecoderCall, stage: Stage, q: int, wide: int) -> Whole:
        key = ("whole", id(stage), q, wide)
        if key not in call.tables:
            new = self._behind(i, call, q)
            there = stage.n + (0 if new is None else new.valid.shape[1])
            call.tables[key] = whole(call.prompt, stage, new, max(0, there - wide))
        return call.tables[key]

    def _feed(
        self,
        i: int,
        call: DecoderCall,
        parts: list[RulePart],
        mlp: nn.Module,
        own: Callable,
        x: Tensor,
    ) -> Tensor:
        columns = self._queries(i, call, x.shape[1])
        width, matrices, narrow = mlp_by_neurons(mlp)

        def run(x: Tensor, neurons: int | None) -> Tensor:
            return own(x) if neurons is None or neurons >= width else narrow(x, neurons)

        feeding = MLPCall(
            x=x,
            columns=columns,
            layer=i,
            prefill=call.prefill,
            width=width,
            matrices=matrices,
            run=run,
            account=partial(_account, call),
        )
        return chained([p.feed for p in parts], lambda f: f.apply(f.x))(feeding)


def _padded_to_one_width(*heads: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values padded to one width; zeros do not change products."""
    width = max(x.shape[-1] for x in heads)
    # A pad of width 0 would copy the tensor.
    return tuple(
        x if x.shape[-1] == width else nn.functional.pad(x, (0, width - x.shape[-1])) for x in heads
    )


def _recorder(i: int, call: DecoderCall, part: RulePart) -> Callable[[Tensor], None]:
    """What takes the scores of layer i: a checkpointed layer that runs again gives none."""
    found = call.prompt.scores
    if found is None or not call.prefill or call.over:
        return unrecorded
    # Columns that skip layers elsewhere are not told what merged before.
    stage = replace(call.prompt.at(i), merged_into=call.prompt.stream(i).merged_into)
    return lambda scores: column_scores(found, part, i, stage, scores.detach(), None)


def _account(call: DecoderCall, flops: Tensor, kv_bytes: Tensor | None = None) -> None:
    # The recomputation of a checkpointed layer is not part of prefill.
    if call.prefill and not call.over:
        call.prompt.saved.append((flops, kv_bytes))


def _unrotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x


def _rotate(module: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotate = getattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb", None)
    if rotate is None:
        raise UnsupportedModel(
            f"{type(module).__name__} has no apply_rotary_pos_emb in its module, so its rotary "
            "embedding can't be changed; use a method that does not change it."
        )
    # The function takes queries and keys; pass no keys.
    return rotate(x, x[:, :0], cos.to(x.dtype), sin.to(x.dtype))[0]


def _refuse(kind: str, what: str) -> None:
    raise UnsupportedCall(
        f"attn_implementation={kind!r} does not support {what}, which this method needs; load the "
        "model with attn_implementation='sdpa'."
    )


@contextmanager
def _replacing_forward(module: nn.Module, answer: Callable) -> Iterator[None]:
    """While open, `answer(module, forward, x)` replaces the module's forward."""
    before = module.__dict__.get("forward")
    own = module.forward
    module.forward = lambda x: answer(module, own, x)
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
