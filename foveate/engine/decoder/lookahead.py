"""Queries and keys that the next decoder layer would make, without its weighing them.

The layer itself makes them and is stopped in front of its kernel: norms, projections, rotation and
scales are its own business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.attention_taps import extras, probabilities, surrounded
from foveate.errors import UnsupportedModel
from foveate.ops.attention import Heads
from foveate.ops.gather import rows_at

# What a layer would write to, and what only its kernel reads.
LEFT_OUT = ("past_key_values", "cache", "attention_mask")


class _Handed(Exception):
    """Carries what a layer hands to its kernel out of it: query, key and how they are weighed."""


def next_attention(
    layer: nn.Module, hidden: Tensor, given: Mapping[str, Any], rows: Tensor, visible: Tensor
) -> Tensor:
    """Attention that `layer` would give columns `rows` (B, R) of its input, (B, H, R, N), float32.

    Only the asked rows are projected to queries where the layer has projections of its own for
    queries and for keys. given: what else the layer is called with. visible: see `probabilities`.
    """
    with torch.no_grad():
        if rows.shape[1] < hidden.shape[1] and _separate(layer.self_attn):
            _, key, how = _keys(layer, hidden, given)
            some = _cut(given, rows, hidden)
            query, _, _ = _handed(layer, rows_at(hidden, rows), some, ("v_proj",))
        else:
            query, key, how = _handed(layer, hidden, given)
            query = rows_at(query, rows)
        return probabilities(query, key, mask=visible, **how)


def next_heads(
    layer: nn.Module,
    hidden: Tensor,
    given: Mapping[str, Any],
    valid: Tensor,
    mask: Tensor | None,
    window: int | None,
) -> Heads:
    """Queries and keys that `layer` would make of its input."""
    with torch.no_grad():
        spared = ("v_proj",) if _separate(layer.self_attn) else ()
        query, key, how = _handed(layer, hidden, given, spared)
        return Heads(query, key, valid=valid, mask=mask, window=window, **how)


def rotates(
    layer: nn.Module,
    hidden: Tensor,
    given: Mapping[str, Any],
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> bool:
    """Whether `layer` turns queries by the tables it is given as `rotate(x, cos, sin)` does.

    False where it doesn't look at them, as layers without positions do.
    """
    with torch.no_grad():
        first = torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device)
        some, hidden = _cut(given, first, hidden), rows_at(hidden, first)
        one = torch.ones_like(some["position_embeddings"][0])
        none = torch.zeros_like(one)
        still, _, _ = _handed(layer, hidden, {**some, "position_embeddings": (one, none)})
        turned, _, _ = _handed(layer, hidden, {**some, "position_embeddings": (none, one)})
        if torch.equal(still, turned):
            return False
        if torch.allclose(rotate(still, none, one), turned, rtol=1e-2, atol=1e-3):
            return True
    raise UnsupportedModel(
        f"{type(layer.self_attn).__name__} does more to queries than rotate them behind their "
        "norms, so that columns can't be left without rotation; use a method that leaves them."
    )


def _separate(attention: nn.Module) -> bool:
    """Whether queries, keys and values come from linear maps of their own."""
    maps = (getattr(attention, name, None) for name in ("q_proj", "k_proj", "v_proj"))
    return all(isinstance(getattr(m, "out_features", None), int) for m in maps)


def _keys(
    layer: nn.Module, hidden: Tensor, given: Mapping[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """As `_handed`, with queries that nobody reads: of one head where the layer takes that."""
    attention, spared = layer.self_attn, ("q_proj", "v_proj")
    heads = getattr(attention.config, "num_attention_heads", 0)
    head = getattr(attention, "head_dim", None)
    norm = getattr(getattr(attention, "q_norm", None), "weight", None)
    by_head = norm is None or norm.numel() == head
    # Gated queries are twice as wide.
    if head and by_head and attention.q_proj.out_features == heads * head:
        try:
            return _handed(layer, hidden, given, spared, head)
        except RuntimeError:
            # It counts its heads instead of asking how many there are.
            pass
    return _handed(layer, hidden, given, spared)


def _handed(
    layer: nn.Module,
    hidden: Tensor,
    given: Mapping[str, Any],
    spared: tuple[str, ...] = (),
    width: int | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Queries (B, H, N, d), keys (B, Hkv, N, d), and scaling, softcap and sinks.

    spared: projections that nobody reads, which give zeros. width: of these, None for their own.
    """

    def stop(kernel, query, key, value, mask, scaling=None, **more):
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        raise _Handed(query, key, {"scaling": scaling, **extras(more)})

    attention = layer.self_attn
    kw = {name: value for name, value in given.items() if name not in LEFT_OUT}
    try:
        with ExitStack() as stack:
            stack.enter_context(surrounded(attention, stop))
            for name in spared:
                stack.enter_context(_silent(getattr(attention, name), width))
            layer.forward(hidden, **kw, attention_mask=None)
    except _Handed as handed:
        return handed.args
    raise UnsupportedModel(
        f"{type(attention).__name__} calls no attention function of transformers, so that what "
        "it will attend to can't be read; use a method that acts before the LLM, such as DivPrune."
    )


@contextmanager
def _silent(projection: Any, width: int | None) -> Iterator[None]:
    """While open, a linear map gives zeros and computes nothing."""
    before = projection.__dict__.get("forward")
    width = projection.out_features if width is None else width
    projection.forward = lambda x: x.new_zeros(1).expand(*x.shape[:-1], width)
    try:
        yield
    finally:
        del projection.forward
        if before is not None:
            projection.forward = before


def _cut(given: Mapping[str, Any], rows: Tensor, hidden: Tensor) -> dict[str, Any]:
    """Arguments of a layer for columns `rows` (B, R) of `hidden` (B, N, D) only."""
    b, n, _ = hidden.shape

    def cut(x: Any) -> Any:
        if isinstance(x, tuple | list):
            return type(x)(map(cut, x))
        if not isinstance(x, Tensor) or x.dim() < 2 or x.shape[1] != n or x.shape[0] not in (1, b):
            return x
        x = x.expand(b, *x.shape[1:])
        return x.gather(1, rows) if x.dim() == 2 else rows_at(x, rows)

    return {name: cut(value) for name, value in given.items()}
