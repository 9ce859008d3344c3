"""Hooks on decoder layers: permanent ones while a method is attached, and those of one call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from foveate.engine.attention_taps import Reader, reading_attention, replacing_attention
from foveate.engine.cache.stored_attention import apart
from foveate.engine.cache.stored_layer import KeptLayer
from foveate.engine.decoder.checkpointing import hooks_outside
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.hooks import Hooks
from foveate.engine.setup import Setup
from foveate.engine.state import ThreadState
from foveate.signals import DecoderKeys


class LayerHooks:
    """The hooks of one attachment on its decoder; each does nothing outside of an attached call."""

    def __init__(self, setup: Setup, state: ThreadState):
        self.setup = setup
        self.state = state

    def register(self, hooks: Hooks) -> None:
        """Register them on the decoder."""
        anatomy = self.setup.anatomy
        if self.setup.boundaries:
            self._register_boundaries(hooks)
        if self.setup.caches:
            for i, layer in enumerate(anatomy.layers):
                hooks.before(layer, functools.partial(self._before_cached, i))
                hooks.after(layer, functools.partial(self._after_cached, i), with_kwargs=True)
        # After the hooks of boundaries: rules act on the columns that are left.
        for i in self.setup.rules.at:
            hooks.before(anatomy.layers[i], functools.partial(self._before_ruled, i))

    def _register_boundaries(self, hooks: Hooks) -> None:
        anatomy, boundaries = self.setup.anatomy, self.setup.boundaries
        hooks.before(anatomy.text, self._before_text)
        hooks.before(anatomy.text.rotary_emb, self._before_rotary)
        hooks.after(anatomy.text.rotary_emb, self._after_rotary, with_kwargs=True)
        for i, layer in enumerate(anatomy.layers):
            if i >= boundaries.start:
                hooks.before(layer, functools.partial(self._before_layer, i))
            if DecoderKeys(i) in boundaries.needs:
                hooks.before(layer, functools.partial(self._before_keys, i))
            if i in boundaries.detours.at:
                hooks.after(layer, self._after_skipped)
            hooks.after(layer, functools.partial(self._add_plane, i))

    def _before_text(self, _: nn.Module, args: tuple, kwargs: dict):
        call = self.state.decoder
        return None if call is None else self.setup.planes.before_text(call, args, kwargs)

    def _before_rotary(self, _: nn.Module, args: tuple, kwargs: dict):
        call = self.state.decoder
        return None if call is None else self.setup.boundaries.widen(call, args, kwargs)

    def _after_rotary(self, _: nn.Module, args: tuple, kwargs: dict, output: Any):
        call = self.state.decoder
        return None if call is None else self.setup.boundaries.narrow(call, args, kwargs, output)

    def _before_layer(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self.state.decoder
        if call is None or call.idle and kwargs.get("attention_mask") is None:
            return None
        return self.setup.boundaries.before_layer(i, call, module, args, kwargs)

    def _before_keys(self, i: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        call = self.state.decoder
        if call is not None:
            self.setup.boundaries.keys_alone(i, call, module, args[0], kwargs)

    def _after_skipped(self, _: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        call = self.state.decoder
        return None if call is None else self.setup.boundaries.detours.leave(call, output)

    def _add_plane(self, i: int, _: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        call = self.state.decoder
        return None if call is None else self.setup.planes.after_layer(i, call, output)

    def _before_cached(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self.state.decoder
        if call is None:
            return None
        return self.setup.caches.before_layer(i, call, module, args, kwargs)

    def _after_cached(self, i: int, _: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        call = self.state.decoder
        if call is not None:
            self.setup.caches.after_layer(i, call, kwargs)

    def _before_ruled(self, i: int, module: nn.Module, args: tuple, kwargs: dict):
        call = self.state.decoder
        if call is None:
            return None
        changed = self.setup.rules.before_layer(i, call, module, args[0], kwargs)
        return None if changed is None else (args, changed)


def surround_layers(
    setup: Setup,
    call: DecoderCall,
    stack: ExitStack,
    readers: dict[int, Reader],
    stored: dict[int, KeptLayer] | None = None,
) -> None:
    """Until `stack` closes, let parts see and change what decoder layers do in one call.

    Args:
        setup: the attached method.
        call: the call of the decoder.
        stack: what undoes all of it.
        readers: by layer, what reads its attention.
        stored: by layer, a cache layer to attend to without unpacking it, where no rule and no
            reader acts.
    """
    layers = setup.anatomy.layers
    shadows: dict[int, Any] = {}
    ruled = setup.rules.enter(call, readers, shadows, stack)
    for i in readers.keys() - ruled:
        stack.enter_context(reading_attention(layers[i].self_attn, readers[i], shadows))
    for i, layer in (stored or {}).items():
        if i not in readers and i not in ruled:
            answer: Callable = stack.enter_context(apart(layer))
            stack.enter_context(replacing_attention(layers[i].self_attn, answer, shadows))
    if call.prefill:
        for watcher in setup.boundaries.watchers(call):
            stack.enter_context(watcher)
    stack.enter_context(hooks_outside(layers))
