"""Runs `CachesPart`s: changes how a layer caches the prompt and the tokens after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.anatomy import Anatomy
from foveate.engine.attention_taps import Reader, extras, implementation, known, probabilities
from foveate.engine.cache.stored_attention import direct
from foveate.engine.cache.stored_layer import KeptLayer, plain
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.decoder.masks import decode_mask
from foveate.engine.prompt.positions import gather_positions
from foveate.engine.prompt.prompt import Stage, cache_in
from foveate.errors import InvalidParameter
from foveate.parts import CachesPart, CacheState


class Caches:
    """The caches part of one attachment."""

    def __init__(self, anatomy: Anatomy, parts: list[CachesPart]):
        if len(parts) > 1:
            names = " and ".join(type(p).__name__ for p in parts)
            raise InvalidParameter(f"{names} both change the KV cache; attach only one of them.")
        self.anatomy = anatomy
        self.part = parts[0] if parts else None

    def __bool__(self) -> bool:
        return self.part is not None

    def after_layer(self, i: int, call: DecoderCall, kw: dict[str, Any]) -> None:
        """After layer i processed the prompt: store its cache as the part wants."""
        cache = cache_in(kw)
        if not call.prefill or cache is None or not plain(cache.layers[i]):
            return
        layer, stage = cache.layers[i], call.prompt.at(i)
        visual = stage.item >= 0
        state = self._state(i, call, layer, stage.valid, visual, stage.item, None)
        store = self.part.hold(state)
        if store is None:
            return
        cache.layers[i] = KeptLayer(layer, store)
        call.prompt.stored[i] = store.nbytes
        if store.index is not None:
            call.prompt.cached[i] = _left(stage, store.index, store.valid)

    def before_layer(self, i: int, call: DecoderCall, module: nn.Module, args: tuple, kw: dict):
        """Pre-hook of layer i: its mask, where a layer has dropped columns from its cache."""
        if call.prefill or not call.prompt.cached:
            return None
        return args, {**kw, "attention_mask": decode_mask(i, call, module, args[0], kw)}

    def readers(self, call: DecoderCall, cache: Any, new: int) -> Iterator[tuple[int, Reader]]:
        """Layers in which the new columns, with `new` more, reach the part's gap.

        Each comes with the function that reads its attention.
        """
        gap = self.part.gap if self.part else None
        for i, layer in enumerate(cache.layers if gap is not None else ()):
            if isinstance(layer, KeptLayer) and layer.stores and layer.loose + new >= gap:
                yield i, self._reader(i, call, layer)

    def apart(self, cache: Any, q: int, mask: Any) -> dict[int, KeptLayer]:
        """Layers whose stored columns one new token can attend to without unpacking.

        None where a part or the caller reads the attention map.
        """
        # Eager attention returns its map, and a custom mask must be applied: both need all columns.
        own = isinstance(mask, Tensor) and mask.dim() == 4
        if not self or q > 1 or own or not known(implementation(self.anatomy.layers[0].self_attn)):
            return {}
        return {i: layer for i, layer in enumerate(cache.layers) if direct(layer)}

    def _reader(self, i: int, call: DecoderCall, layer: KeptLayer) -> Reader:
        @torch.no_grad()
        def read(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, **more) -> None:
            loose = layer.loose
            count = loose - loose % self.part.gap
            later = call.behind
            if later is None:
                later = torch.ones(len(query), loose, dtype=torch.bool, device=query.device)
            valid = later[:, -loose:][:, :count]
            if mask is not None:
                mask = mask[..., -1:, :] if mask.dim() == 4 else mask.bool()[:, None, None]
            row = probabilities(query[:, :, -1:], key, scaling, mask, **extras(more))[:, :, 0]
            row = row[..., -loose:][..., :count]
            none = torch.zeros_like(valid)
            state = self._state(i, call, layer, valid, none, none.long() - 1, row)
            store = self.part.hold(state)
            if store is not None:
                layer.store(store)

        return read

    def _state(
        self, i: int, call: DecoderCall, layer, valid, visual, item, attention
    ) -> CacheState:
        n = valid.shape[1]
        return CacheState(
            keys=layer.keys[:, :, :n],
            values=layer.values[:, :, :n],
            valid=valid,
            visual=visual,
            item=item,
            attention=attention,
            layer=i,
            layers=len(self.anatomy.layers),
            notes=call.prompt.notes.setdefault(id(self.part.owner), {}),
            pictured=[any(row) for row in call.prompt.first.held],
        )


def _left(stage: Stage, index: Tensor, valid: Tensor) -> Stage:
    """A stage with only the columns `index` (B, N)."""
    return Stage(
        boundary=stage.boundary,
        prompt_column=stage.prompt_column.gather(1, index),
        first_column=stage.first_column.gather(1, index),
        valid=valid,
        item=stage.item.gather(1, index).masked_fill(~valid, -1),
        token=stage.token.gather(1, index).masked_fill(~valid, -1),
        lengths=valid.sum(1).tolist(),
        positions=None if stage.positions is None else gather_positions(stage.positions, index),
    )
