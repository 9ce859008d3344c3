"""Reads or replaces the attention calls of one module without a change of its implementation."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from foveate.ops.attention import scaled_product, weighed

Reader = Callable[..., None]
Kernel = Callable[..., tuple[Tensor, Tensor | None]]
Around = Callable[..., tuple[Tensor, Tensor | None]]
_taps: WeakKeyDictionary[nn.Module, Around] = WeakKeyDictionary()
_registered: set[str] = set()
_PREFIX = "foveate_"


def implementation(attention: nn.Module) -> str:
    """Name of the attention implementation that the user chose for a module."""
    return attention.config._attn_implementation.removeprefix(_PREFIX)


def known(name: str) -> bool:
    """Whether an attention implementation is known to compute plain softmax attention."""
    return name == "sdpa" or "flash" in name


def plain(arguments: Mapping[str, Any]) -> bool:
    """Whether a call uses no dropout, softcap or attention sinks."""
    return not arguments.get("dropout") and all(
        arguments.get(extra) is None for extra in ("softcap", "s_aux")
    )


def _user_function(module: nn.Module, name: str) -> Callable:
    eager = sys.modules[type(module).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)


def _register(name: str) -> str:
    tapped = _PREFIX + name
    if tapped not in _registered:

        def tap(module, query, key, value, attention_mask=None, **kwargs):
            kernel = partial(_user_function(module, name), module)
            around = _taps.get(module, _straight)
            return around(kernel, query, key, value, attention_mask, **kwargs)

        AttentionInterface.register(tapped, tap)
        _registered.add(tapped)
    return tapped


def _straight(kernel: Kernel, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return kernel(*args, **kwargs)


@contextmanager
def replacing_attention(
    attention: nn.Module, around: Around, shadows: dict[int, Any] | None = None
) -> Iterator[None]:
    """While open, `around(kernel, query, key, value, mask, ...)` computes calls of `attention`.

    query (B, H, q, d) and key (B, Hkv, K, d) arrive after normalisation and rotation, with the KV
    cache appended, and key heads not repeated.

    Args:
        attention: The attention module. Only its own reference to the config changes.
        around: Gets the user's attention function `kernel`, which has the same arguments.
        shadows: Config copies by the id of the original. Modules that are opened together share it.
    """
    own, shadows = attention.config, {} if shadows is None else shadows
    if id(own) not in shadows:
        shadows[id(own)] = shadow = copy.copy(own)
        shadow._attn_implementation = _register(implementation(attention))
    outer = _taps.get(attention)
    attention.config = shadows[id(own)]
    _taps[attention] = around
    try:
        yield
    finally:
        attention.config = own
        _taps.pop(attention, None)
        if outer is not None:
            _taps[attention] = outer


def reading_attention(
    attention: nn.Module, reader: Reader, shadows: dict[int, Any] | None = None
) -> AbstractContextManager[None]:
    """While open, `reader(query, key, mask, scaling=, ...)` runs before every attention call."""

    def read(kernel, query, key, value, mask, **kwargs):
        reader(query, key, mask, **kwargs)
        return kernel(query, key, value, mask, **kwargs)

    return replacing_attention(attention, read, shadows)


def extras(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Softcap and attention sinks of a kernel's arguments, as arguments of `probabilities`."""
    return {"softcap": arguments.get("softcap"), "sinks": arguments.get("s_aux")}


def repeat_heads(key: Tensor, heads: int) -> Tensor:
    """(B, Hkv, K, d) with every key head repeated for its group of query heads."""
    return key if key.shape[1] == heads else key.repeat_interleave(heads // key.shape[1], dim=1)


def probabilities(
    query: Tensor,
    key: Tensor,
    scaling: float,
    mask: Tensor | None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention probabilities of some queries, (B, H, q, K), in float32.

    Args:
        query: (B, H, q, d).
        key: (B, Hkv, K, d).
        scaling: Factor of the products.
        mask: Bool with True for keys to attend to, or additive; broadcastable to (B, H, q, K).
        softcap: See `weighed`.
        sinks: See `weighed`.
    """
    return weighed(products(query, key, scaling), mask, softcap, sinks)


def products(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Attention logits of some queries before any mask, (B, H, q, K), in float32."""
    key = repeat_heads(key, query.shape[1])
    return scaled_product(query, key, scaling)


def received(
    query: Tensor,
    key: Tensor,
    scaling: float,
    mask: Tensor | None,
    alive: Tensor | None = None,
    chunk: int = 256,
) -> Tensor:
    """Mean attention that each key receives, (B, H, K), computed in chunks of queries.

    Args:
        query: (B, H, q, d).
        key: (B, Hkv, K, d).
        scaling: Factor of the products.
        mask: As in `probabilities`.
        alive: (B, q) bool, queries that count. None for all.
        chunk: Queries per chunk.
    """
    total = torch.zeros(query.shape[0], query.shape[1], key.shape[2], device=query.device)
    for start, seen in _in_chunks(query, key, scaling, mask, chunk):
        total += _counted(seen, alive, start).sum(2)
    if alive is None:
        return total / query.shape[2]
    return total / alive.sum(1)[:, None, None]


def mutual(
    query: Tensor,
    key: Tensor,
    scaling: float,
    mask: Tensor | None,
    skip: int,
    alive: Tensor | None = None,
    chunk: int = 256,
) -> Tensor:
    """Attention that each token receives and pays, summed: (B, 2, H, K).

    Args:
        query: (B, H, q, d).
        key: (B, Hkv, K, d).
        scaling: Factor of the products.
        mask: As in `probabilities`.
        skip: Leave out the first `skip` tokens, such as a class token.
        alive: (B, q) bool, queries that count. None for all.
        chunk: Queries per chunk.
    """
    gets = torch.zeros(query.shape[0], query.shape[1], key.shape[2], device=query.device)
    gives = []
    for start, seen in _in_chunks(query, key, scaling, mask, chunk):
        seen = _counted(seen, alive, start)
        gets += seen[:, :, max(0, skip - start) :].sum(2)
        gives.append(seen[..., skip:].sum(3))
    return torch.stack([gets, torch.cat(gives, 2)], 1)


def _counted(seen: Tensor, alive: Tensor | None, start: int) -> Tensor:
    """Attention rows (B, H, q, K), the first of which is row `start`, zero where not alive."""
    if alive is None:
        return seen
    return seen * alive[:, None, start : start + seen.shape[2], None]


def _in_chunks(
    query: Tensor, key: Tensor, scaling: float, mask: Tensor | None, chunk: int
) -> Iterator[tuple[int, Tensor]]:
    """Full attention in chunks of queries: first query of the chunk, probabilities (B, H, q, K)."""
    for start in range(0, query.shape[2], chunk):
        rows = slice(start, start + chunk)
        part = mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :]
        yield start, probabilities(query[:, :, rows], key, scaling, part)
