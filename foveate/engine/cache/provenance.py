"""What a cache knows of the prompt that filled it: who may go on with it, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from transformers import Cache

from foveate.engine.cache.stored_layer import KeptLayer, croppable
from foveate.engine.prompt.prompt import Prompt
from foveate.errors import UnsupportedCall
from foveate.method import Method

_FOLLOWED = (
    "update",
    "get_seq_length",
    "get_query_offset",
    "crop",
    "reset",
    "reorder_cache",
    "batch_select_indices",
    "batch_repeat_interleave",
)


class Filled:
    """Hangs on a cache whose layers hold something else than the caller's prompt.

    Stands in for the methods of that one cache, so that whatever the caller does with it is
    followed or refused, with no hook on any model. Goes along when the cache is copied or saved.

    Attributes:
        method: what filled the cache.
        prompt: what its layers hold.
        new: columns that came behind the prompt.
        open: whether a model runs to which an equal method is attached.
    """

    def __init__(self, cache: Cache, prompt: Prompt, method: Method):
        # Weak: a cycle would keep keys and values alive until garbage is collected.
        self._cache: Callable[[], Cache | None] = ref(cache)
        self._prompt = prompt
        self._rows: Tensor | None = None
        self.method = method
        self.new = 0
        self.open = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": self._bare(), "open": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _cache=ref(state["_cache"]))

    def _bare(self) -> Cache:
        cache = self._cache()
        if cache is None:
            raise UnsupportedCall(
                "This is a shallow copy of a cache that is gone; copy caches by copy.deepcopy."
            )
        return cache

    @property
    def prompt(self) -> Prompt:
        """What the layers hold, in the order of rows that the cache has now."""
        if self._rows is not None:
            self._prompt, self._rows = self._prompt.take(self._rows), None
        return self._prompt

    @property
    def rows(self) -> int:
        """Samples that the cache holds."""
        held = self._prompt.first.prompt_column if self._rows is None else self._rows
        return len(held)

    def held(self, columns: int) -> int:
        """Columns that layer 0 holds, before `columns` more."""
        held = self._bare().layers[0].get_seq_length()
        # Static layers count on the device: reading that at every new token would wait for it.
        counted = isinstance(held, int) or columns > 1
        return int(held) if counted else self._prompt.at(0).n + self.new

    def admit(self, method: Method, rows: int, columns: int) -> None:
        """Raise unless `method` can go on with this cache, by `columns` in a batch of `rows`."""
        if method != self.method:
            raise UnsupportedCall(
                f"The cache was filled under {self.method!r} and can't be continued under "
                f"{method!r}; continue it with the method that filled it, or start a fresh call."
            )
        if self._prompt.soft:
            raise UnsupportedCall(
                "The cache was filled while choices were soft, in training; fill it anew without "
                "labels, or pass use_cache=False."
            )
        if rows != self.rows:
            raise UnsupportedCall(
                f"The cache was filled by {self.rows} rows and is continued by {rows}; "
                "continue it with the same batch."
            )
        held, known = self.held(columns), self._prompt.at(0).n + self.new
        if held != known:
            raise UnsupportedCall(
                f"Layer 0 of the cache holds {held} columns where {known} went in; change a cache "
                "by its own methods, crop and the like, not layer by layer."
            )

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs):
        cache = self._bare()
        if not self.open:
            raise UnsupportedCall(
                f"The cache was filled under {self.method!r}, which is not attached to this model; "
                "attach it again to go on, or start a fresh call."
            )
        return type(cache).update(cache, key_states, value_states, layer_idx, *args, **kwargs)

    def get_seq_length(self, layer_idx: int = 0):
        """What the caller counts, so that generate slices a second turn rightly."""
        cache = self._bare()
        held = type(cache).get_seq_length(cache, layer_idx)
        return held + self._prompt.missing if layer_idx < len(cache.layers) else held

    def get_query_offset(self, layer_idx: int = 0):
        """What is held, so that masks are sized rightly."""
        cache = self._bare()
        return type(cache).get_seq_length(cache, layer_idx)

    def reset(self) -> None:
        cache = self._bare()
        untag(cache)
        cache.reset()

    def crop(self, tokens_to_remove: int) -> None:
        cache, seen = self._bare(), self._prompt.length + self.new
        # Earlier versions of transformers took the length that is left.
        gone = max(0, seen - tokens_to_remove) if tokens_to_remove > 0 else -tokens_to_remove
        if gone >= seen:
            cache.reset()
            return
        if self._prompt.open_end and not self.new:
            raise UnsupportedCall(
                "This model isn't told which columns of a prompt are candidates of assisted "
                f"decoding, and {self.method!r} read them as the question; generate without "
                "assistant_model and prompt_lookup_num_tokens."
            )
        for layer in cache.layers:
            if isinstance(layer, KeptLayer):
                layer.admit(gone)
            elif gone and not croppable(layer):
                raise UnsupportedCall(
                    "A layer with a sliding window has let columns go and can't take them back; "
                    "call cache.activate_past_recording() on the empty cache."
                )
        prompt = self._prompt
        if gone > self.new:
            prompt = self.prompt.cut(gone - self.new)
        type(cache).crop(cache, -gone)
        self._prompt, self.new = prompt, max(0, self.new - gone)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        cache = self._bare()
        type(cache).reorder_cache(cache, beam_idx)
        self._take(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        cache = self._bare()
        type(cache).batch_select_indices(cache, indices)
        self._take(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        cache, rows = self._bare(), self.rows
        type(cache).batch_repeat_interleave(cache, repeats)
        device = self._prompt.first.prompt_column.device
        self._take(torch.arange(rows, device=device).repeat_interleave(repeats))

    def _take(self, rows: Tensor) -> None:
        # Beams move at every step: what they take along is worked out when somebody asks.
        rows = rows.to(self._prompt.first.prompt_column.device)
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        self._rows = rows if self._rows is None else self._rows[rows]


def tag(cache: Cache, prompt: Prompt, method: Method) -> None:
    """Hang on the cache what filled it; it is answered for where that is not the bare prompt."""
    untag(cache)
    filled = cache.foveate = Filled(cache, prompt, method)
    if prompt.changed:
        for name in _FOLLOWED:
            setattr(cache, name, getattr(filled, name))


def untag(cache: Cache) -> None:
    """Make a cache a plain one again."""
    for name in ("foveate", *_FOLLOWED):
        cache.__dict__.pop(name, None)


def filled_of(cache: Cache | None, columns: int) -> Filled | None:
    """What is known of a cache that a method filled, None for a plain, empty or reset one.

    columns: how many go on with it.
    """
    filled = None if cache is None else cache.__dict__.get("foveate")
    if filled is not None and filled.held(columns) == 0:
        untag(cache)
        return None
    return filled
