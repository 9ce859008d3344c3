"""Queries and keys of a decoder layer before it runs.

The layer computes them itself, with its own norms, projections, rotation and scaling. It is stopped
before its attention kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.attention_taps import extras, probabilities, replacing_attention
from foveate.errors import UnsupportedModel
from foveate.ops.attention import Heads
from foveate.ops.gather import rows_at

# Arguments that are left out: the cache, which the layer would write to, and the kernel's mask.
LEFT_OUT = ("past_key_values", "cache", "attention_mask")


class _KernelReached(Exception):
    """Stops a layer at its attention kernel; carries queries, keys and kernel arguments."""


def next_attention(
    layer: nn.Module, hidden: Tensor, given: Mapping[str, Any], rows: Tensor, visible: Tensor
) -> Tensor:
    """Attention probabilities of `layer` for some queries, (B, H, R, N) in float32.

    Where the layer has separate projections for queries, keys and values, only the queries of
    `rows` are computed.

    Args:
        layer: The decoder layer.
        hidden: (B, N, D) its input.
        given: Its other arguments.
        rows: (B, R) int, columns used as queries.
        visible: The mask, see `probabilities`.
    """
    with torch.no_grad():
        if rows.shape[1] < hidden.shape[1] and _separate(layer.self_attn):
            _, key, how = _keys(layer, hidden, given)
            some = _cut(given, rows, hidden)
            query, _, _ = _queries_and_keys(layer, rows_at(hidden, rows), some, ("v_proj",))
        else:
            query, key, how = _queries_and_keys(layer, hidden, given)
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
    """Queries and keys that `layer` computes of its input."""
    with torch.no_grad():
        spared = ("v_proj",) if _separate(layer.self_attn) else ()
        query, key, how = _queries_and_keys(layer, hidden, given, spared)
        return Heads(query, key, valid=valid, mask=mask, window=window, **how)


def rotates(
    layer: nn.Module,
    hidden: Tensor,
    given: Mapping[str, Any],
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> bool:
    """Whether `layer` rotates its queries as `rotate(x, cos, sin)` does with the given tables.

    False where it ignores the tables, as layers without position embeddings do.
    """
    with torch.no_grad():
        first = torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device)
        some, hidden = _cut(given, first, hidden), rows_at(hidden, first)
        # Rotary tables (cos, sin) of an angle of 0 and of a quarter turn.
        one = torch.ones_like(some["position_embeddings"][0])
        none = torch.zeros_like(one)
        at_zero = {**some, "position_embeddings": (one, none)}
        still, _, _ = _queries_and_keys(layer, hidden, at_zero)
        at_quarter = {**some, "position_embeddings": (none, one)}
        turned, _, _ = _queries_and_keys(layer, hidden, at_quarter)
        if torch.equal(still, turned):
            return False
        if torch.allclose(rotate(still, none, one), turned, rtol=1e-2, atol=1e-3):
            return True
    raise UnsupportedModel(
        f"{type(layer.self_attn).__name__} changes queries in other ways than a rotary embedding, "
        "so tokens can't be left unrotated; use a method without its own rotation."
    )


def _separate(attention: nn.Module) -> bool:
    """Whether queries, keys and values have separate linear projections."""
    maps = (getattr(attention, name, None) for name in ("q_proj", "k_proj", "v_proj"))
    return all(isinstance(getattr(m, "out_features", None), int) for m in maps)


def _keys(
    layer: nn.Module, hidden: Tensor, given: Mapping[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Like `_queries_and_keys`, but only the keys are valid.

    The queries have a single head where the layer allows it.
    """
    attention, spared = layer.self_attn, ("q_proj", "v_proj")
    heads = getattr(attention.config, "num_attention_heads", 0)
    head = getattr(attention, "head_dim", None)
    norm = getattr(getattr(attention, "q_norm", None), "weight", None)
    by_head = norm is None or norm.numel() == head
    # Gated queries are twice as wide.
    if head and by_head and attention.q_proj.out_features == heads * head:
        try:
            return _queries_and_keys(layer, hidden, given, spared, head)
        except RuntimeError:
            # The layer reshapes to its configured number of heads; compute all of them.
            pass
    return _queries_and_keys(layer, hidden, given, spared)


def _queries_and_keys(
    layer: nn.Module,
    hidden: Tensor,
    given: Mapping[str, Any],
    spared: tuple[str, ...] = (),
    width: int | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Queries (B, H, N, d), keys (B, Hkv, N, d), and a dict with scaling, softcap and sinks.

    Args:
        layer: The decoder layer.
        hidden: (B, N, D) its input.
        given: Its other arguments.
        spared: Names of projections that are not needed. They return zeros.
        width: Output width of these projections. None: their own.
    """

    def stop(kernel, query, key, value, mask, scaling=None, **more):
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        raise _KernelReached(query, key, {"scaling": scaling, **extras(more)})

    attention = layer.self_attn
    kw = {name: value for name, value in given.items() if name not in LEFT_OUT}
    try:
        with ExitStack() as stack:
            stack.enter_context(replacing_attention(attention, stop))
            for name in spared:
                stack.enter_context(_zero_output(getattr(attention, name), width))
            layer.forward(hidden, **kw, attention_mask=None)
    except _KernelReached as handed:
        return handed.args
    raise UnsupportedModel(
        f"{type(attention).__name__} does not use the attention interface of transformers, so its "
        "attention can't be read; use a method that acts before the LLM, such as DivPrune."
    )


@contextmanager
def _zero_output(projection: Any, width: int | None) -> Iterator[None]:
    """While open, a linear layer returns zeros and computes nothing."""
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
    """Arguments of a layer for the columns `rows` (B, R) of `hidden` (B, N, D) only."""
    b, n, _ = hidden.shape

    def cut(x: Any) -> Any:
        if isinstance(x, tuple | list):
            return type(x)(map(cut, x))
        if not isinstance(x, Tensor) or x.dim() < 2 or x.shape[1] != n or x.shape[0] not in (1, b):
            return x
        x = x.expand(b, *x.shape[1:])
        return x.gather(1, rows) if x.dim() == 2 else rows_at(x, rows)

    return {name: cut(value) for name, value in given.items()}
