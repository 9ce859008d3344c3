"""Records which prompt filled a KV cache, and follows or refuses what the caller does with it."""

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
    """Attached to a cache whose layers contain something else than the full prompt.

    It overrides methods of this one cache instance, so that every operation on the cache is
    followed or refused without hooks on a model. It is copied and saved with the cache.

    Attributes:
        method: The method that filled the cache.
        prompt: The prompt that its layers contain.
        new: Number of columns after the prompt.
        open: Whether a model with an equal method attached is running.
    """

    def __init__(self, cache: Cache, prompt: Prompt, method: Method):
        # Weak, because a cycle would keep keys and values alive until garbage collection.
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
                "This is a shallow copy of a cache that no longer exists; copy caches with "
                "copy.deepcopy."
            )
        return cache

    @property
    def prompt(self) -> Prompt:
        """The prompt, with its rows in the current order of the cache."""
        if self._rows is not None:
            self._prompt, self._rows = self._prompt.take(self._rows), None
        return self._prompt

    @property
    def rows(self) -> int:
        """Number of samples in the cache."""
        held = self._prompt.first.prompt_column if self._rows is None else self._rows
        return len(held)

    def held(self, columns: int) -> int:
        """Number of columns in layer 0, before `columns` more."""
        held = self._bare().layers[0].get_seq_length()
        # Static layers count on the device. Reading that for every new token would be a sync.
        counted = isinstance(held, int) or columns > 1
        return int(held) if counted else self._prompt.at(0).n + self.new

    def admit(self, method: Method, rows: int, columns: int) -> None:
        """Raise unless `method` can continue this cache with `columns` columns of `rows` rows."""
        if method != self.method:
            raise UnsupportedCall(
                f"The cache was filled with {self.method!r} and can't be continued with "
                f"{method!r}; attach the first method, or start a new call without this cache."
            )
        if self._prompt.soft:
            raise UnsupportedCall(
                "The cache was filled in training with soft token selection and can't be "
                "continued; fill it again without labels, or pass use_cache=False."
            )
        if rows != self.rows:
            raise UnsupportedCall(
                f"The cache has {self.rows} rows, but the call has {rows}; continue it with the "
                "same batch."
            )
        held, known = self.held(columns), self._prompt.at(0).n + self.new
        if held != known:
            raise UnsupportedCall(
                f"Layer 0 of the cache has {held} tokens instead of {known}; change a cache with "
                "its own methods such as crop, not layer by layer."
            )

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs):
        cache = self._bare()
        if not self.open:
            raise UnsupportedCall(
                f"The cache was filled with {self.method!r}, which is not attached to this model; "
                "attach it again, or start a new call without this cache."
            )
        return type(cache).update(cache, key_states, value_states, layer_idx, *args, **kwargs)

    def get_seq_length(self, layer_idx: int = 0):
        """Length of the full sequence, with which `generate` slices the input of a second turn."""
        cache = self._bare()
        held = type(cache).get_seq_length(cache, layer_idx)
        return held + self._prompt.missing if layer_idx < len(cache.layers) else held

    def get_query_offset(self, layer_idx: int = 0):
        """The number of cached columns, so that masks get the right size."""
        cache = self._bare()
        return type(cache).get_seq_length(cache, layer_idx)

    def reset(self) -> None:
        cache = self._bare()
        untag(cache)
        cache.reset()

    def crop(self, tokens_to_remove: int) -> None:
        cache, seen = self._bare(), self._prompt.length + self.new
        # Older transformers versions pass the length that remains instead.
        gone = max(0, seen - tokens_to_remove) if tokens_to_remove > 0 else -tokens_to_remove
        if gone >= seen:
            cache.reset()
            return
        if self._prompt.open_end and not self.new:
            raise UnsupportedCall(
                "Assisted decoding is not supported here: the model does not know which tokens of "
                f"its first call are candidates, so {self.method!r} took them for the question; "
                "generate without assistant_model and prompt_lookup_num_tokens."
            )
        for layer in cache.layers:
            if isinstance(layer, KeptLayer):
                layer.admit(gone)
            elif gone and not croppable(layer):
                raise UnsupportedCall(
                    "A sliding-window layer has dropped old tokens, so its cache can't be cropped; "
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
        # Beam search reorders rows at every step; the prompt is reordered only when it is read.
        rows = rows.to(self._prompt.first.prompt_column.device)
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        self._rows = rows if self._rows is None else self._rows[rows]


def tag(cache: Cache, prompt: Prompt, method: Method) -> None:
    """Record on the cache what filled it; override its methods if the prompt was changed."""
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
    """The record of a cache that a method filled; None for a plain, empty or reset cache.

    `columns` is the number of columns that continue it.
    """
    filled = None if cache is None else cache.__dict__.get("foveate")
    if filled is not None and filled.held(columns) == 0:
        untag(cache)
        return None
    return filled
