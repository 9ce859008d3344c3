"""A cache layer that holds some of its columns in a form of their own."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from foveate.errors import UnsupportedCall
from foveate.parts import Store


class KeptLayer(DynamicLayer):
    """Stores, oldest first, and behind them new columns as they are, in `keys` and `values`.

    Counts as its length what it has taken in, and for masks what it holds. hasty: whether the last
    of several new columns, which may be candidates, said how others are stored. apart: who attends
    to it looks into the stores himself, and is given new columns only.
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
        """Columns that it holds, padding included."""
        return sum(s.valid.shape[1] for s in self.stores) + self.loose

    @property
    def loose(self) -> int:
        """New columns that are held as they are."""
        return self.keys.shape[2] if self.keys is not None and self.keys.dim() == 4 else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held."""
        loose = self.keys.nbytes + self.values.nbytes if self.loose else 0
        return sum(s.nbytes for s in self.stores) + loose

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        keys, values = super().update(key_states, value_states)
        self.taken += key_states.shape[2]
        self.newest, self.hasty = key_states.shape[2], False
        return (keys, values) if self.apart or not self.stores else self.joined(keys, values)

    def joined(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What the stores hold, and these loose columns behind it."""
        read = [store.read() for store in self.stores]
        return torch.cat([k for k, _ in read] + [keys], 2), torch.cat(
            [v for _, v in read] + [values], 2
        )

    def store(self, store: Store) -> None:
        """Hold the oldest new columns in this form."""
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
        """Raise unless the last `gone` columns can be taken back."""
        if gone > self.loose or self.hasty:
            raise UnsupportedCall(
                f"{gone} columns can't be taken back from a cache of which the last {self.loose} "
                "are as they were, and these wait for what comes behind them; generate without "
                "assisted decoding."
            )

    def crop(self, tokens_to_remove: int) -> None:
        self.admit(-tokens_to_remove)
        super().crop(tokens_to_remove)
        self.taken += tokens_to_remove


def refuse_foreign(cache: Cache | None) -> None:
    """Raise for a cache whose layers can't be held in another form."""
    if cache is None:
        return
    if not isinstance(cache, DynamicCache) or cache.offloading:
        what = "an offloaded cache" if cache.offloading else f"a {type(cache).__name__}"
        raise UnsupportedCall(
            f"What a method keeps of {what} can't be exact; pass a plain DynamicCache or none."
        )
    for layer in cache.layers:
        if not plain(layer) and type(layer) is not DynamicSlidingWindowLayer:
            raise UnsupportedCall(
                f"A cache with a {type(layer).__name__} holds its columns in a form of its own; "
                "pass a plain DynamicCache or none."
            )


def croppable(layer: CacheLayerMixin) -> bool:
    """Whether columns can be taken back from a layer that the library made."""
    if isinstance(layer, DynamicSlidingWindowLayer):
        return layer.record_past or layer.get_seq_length() < layer.sliding_window
    return layer.is_croppable


def plain(layer: CacheLayerMixin) -> bool:
    """Whether a layer holds columns as they are, and all of them."""
    return type(layer) is DynamicLayer or isinstance(layer, KeptLayer) and not layer.stores
