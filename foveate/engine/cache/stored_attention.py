"""Attention of one new token to a layer's stored columns, without unpacking them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from foveate.engine.attention_taps import Around, Kernel, plain
from foveate.engine.cache.stored_layer import KeptLayer
from foveate.ops.attention import folded, shown


def direct(layer: Any) -> bool:
    """Whether new tokens can attend to all stored columns of a cache layer without unpacking."""
    return (
        isinstance(layer, KeptLayer)
        and bool(layer.stores)
        and all(hasattr(store, "products_into") for store in layer.stores)
    )


@contextmanager
def apart(layer: KeptLayer) -> Iterator[Around]:
    """While open, the layer returns only its new columns; yields what computes its attention."""

    def answer(kernel: Kernel, query, key, value, mask, scaling, **kw: Any):
        if not plain(kw):
            return kernel(query, *layer.joined(key, value), mask, scaling=scaling, **kw)
        return attended(layer, query, key, value, mask, scaling), None

    layer.apart = True
    try:
        yield answer
    finally:
        layer.apart = False


def attended(
    layer: KeptLayer, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """Output (B, 1, H, d) of one query over the stores of a layer and its new columns.

    Computed in float32, because minima and steps of quantised values cancel each other.

    Args:
        layer: The cache layer.
        query: (B, H, 1, d).
        key: (B, Hkv, n, d), the new columns.
        value: (B, Hkv, n, d), the new columns.
        mask: Mask of all columns in the layer, in the kernel's format.
        scaling: Factor of the products.
    """
    shared, loose = key.shape[1:3]
    rows = folded(query.float() * scaling, shared)
    counts = [store.valid.shape[1] for store in layer.stores]
    logits = rows.new_full((*rows.shape[:3], sum(counts) + loose), float("-inf"))
    *parts, last = logits.split([*counts, loose], -1)
    for store, part in zip(layer.stores, parts, strict=True):
        store.products_into(part, rows)
    last.copy_(rows @ key.float().mT)
    if mask is not None:
        mask = mask[..., -loose:] if mask.dim() == 4 else mask[:, None, None, -loose:].bool()
        last.masked_fill_(~shown(mask), float("-inf"))
    *shares, last = logits.softmax(-1).split([*counts, loose], -1)
    out = last @ value.float()
    for store, share in zip(layer.stores, shares, strict=True):
        out = out + store.mixed(share)
    return out.view(*query.shape[:3], -1).transpose(1, 2).to(query.dtype)
