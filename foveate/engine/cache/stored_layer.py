"""A cache layer that stores some of its columns in the format of a method."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from foveate.errors import UnsupportedCall
from foveate.parts import Store


class KeptLayer(DynamicLayer):
    """Stores (oldest first), followed by new columns unchanged in `keys` and `values`.

    `get_seq_length` counts all columns it ever got. Mask sizes count the columns it has.

    Attributes:
        taken: Number of columns that it got.
        stores: The stores.
        hasty: Whether the last store was chosen by the last of several new columns, which may be
            candidates of assisted decoding.
        apart: Whether `update` returns new columns only, because the attention reads the stores.
    """

    apart = False

    def __init__(self, like: DynamicLayer, store: Store):
        super().__init__()
        self.lazy_initialization(like.keys, like.values)
        self.taken = like.keys.shape[2]
        self.stores = [store]
        self.hasty = False
        self.keys, self.values = (x[:, :, :0].clone() for x in (like.keys, like.values))

    @property
    def held(self) -> int:
        """Number of columns in the layer, padding included."""
        return sum(s.valid.shape[1] for s in self.stores) + self.loose

    @property
    def loose(self) -> int:
        """Number of new columns that are unchanged."""
        return self.keys.shape[2] if self.keys is not None and self.keys.dim() == 4 else 0

    @property
    def nbytes(self) -> int:
        """Size of the layer in bytes."""
        loose = self.keys.nbytes + self.values.nbytes if self.loose else 0
        return sum(s.nbytes for s in self.stores) + loose

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        keys, values = super().update(key_states, value_states)
        self.taken += key_states.shape[2]
        self.newest, self.hasty = key_states.shape[2], False
        return (keys, values) if self.apart or not self.stores else self.joined(keys, values)

    def joined(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the stores, followed by these new columns."""
        read = [store.read() for store in self.stores]
        return torch.cat([k for k, _ in read] + [keys], 2), torch.cat(
            [v for _, v in read] + [values], 2
        )

    def store(self, store: Store) -> None:
        """Put the oldest new columns into this store."""
        n, self.hasty = store.valid.shape[1], self.newest > 1
        self.stores.append(store)
        self.keys, self.values = (x[:, :, n:].clone() for x in (self.keys, self.values))

    def get_seq_length(self) -> int:
        return self.taken

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.held + query_length, 0

    def reset(self) -> None:
        self.stores, self.taken = [], 0
        super().reset()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        if not self.taken:
            return
        indices = indices.to(self.keys.device)
        self.stores = [store.take(indices) for store in self.stores]
        self.keys, self.values = self.keys[indices], self.values[indices]

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.taken:
            rows = torch.arange(self.keys.shape[0], device=self.keys.device)
            self.batch_select_indices(rows.repeat_interleave(repeats))

    def admit(self, gone: int) -> None:
        """Raise unless the last `gone` columns can be removed."""
        if gone > self.loose or self.hasty:
            raise UnsupportedCall(
                f"The cache can't be cropped by {gone} tokens, because only the last {self.loose} "
                "are stored unchanged; generate without assisted decoding."
            )

    def crop(self, tokens_to_remove: int) -> None:
        self.admit(-tokens_to_remove)
        super().crop(tokens_to_remove)
        self.taken += tokens_to_remove


def refuse_foreign(cache: Cache | None) -> None:
    """Raise for a cache whose layers can't be stored in another format."""
    if cache is None:
        return
    if not isinstance(cache, DynamicCache) or cache.offloading:
        what = "an offloaded cache" if cache.offloading else f"a {type(cache).__name__}"
        raise UnsupportedCall(
            f"Methods that change the KV cache do not support {what}; pass a DynamicCache, or no "
            "cache."
        )
    for layer in cache.layers:
        if not plain(layer) and type(layer) is not DynamicSlidingWindowLayer:
            raise UnsupportedCall(
                f"Methods that change the KV cache do not support a {type(layer).__name__}; pass a "
                "DynamicCache, or no cache."
            )


def croppable(layer: CacheLayerMixin) -> bool:
    """Whether columns can be removed from the end of a transformers cache layer."""
    if isinstance(layer, DynamicSlidingWindowLayer):
        return layer.record_past or layer.get_seq_length() < layer.sliding_window
    return layer.is_croppable


def plain(layer: CacheLayerMixin) -> bool:
    """Whether a layer stores all its columns unchanged."""
    return type(layer) is DynamicLayer or isinstance(layer, KeptLayer) and not layer.stores
