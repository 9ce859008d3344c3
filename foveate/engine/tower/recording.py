"""Records the signals that parts need from the vision encoder, as values per output row."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.anatomy import Anatomy
from foveate.engine.attention_taps import (
    mutual,
    probabilities,
    products,
    reading_attention,
    received,
)
from foveate.errors import UnsupportedModel
from foveate.families.base import resolve_path
from foveate.ops.transfer import on_device
from foveate.signals import (
    ClassState,
    Need,
    ProjectorInput,
    VisionAttention,
    VisionKeys,
    VisionStates,
)

ROWS = ("auto", "cls", "received", "mutual")
VISION_NEEDS = (VisionAttention, VisionKeys, VisionStates, ProjectorInput, ClassState)


class VisionRecorder:
    """Records signals during one `get_*_features` call.

    Attributes:
        rows: By signal, values (R, ...) per patch row of the encoder, in the order of the image.
        class_rows: (views, C) class tokens, or None.
        views: Number of crops or frames that ran through the encoder, and patches of each. None for
            encoders that pack several images into one sequence.
        merger: The `Merger` of this call, or None.
    """

    def __init__(self, anatomy: Anatomy, modality: str, needs: tuple[Need, ...]):
        self.anatomy = anatomy
        self.modality = modality
        self.needs = [n for n in dict.fromkeys(needs) if isinstance(n, VISION_NEEDS)]
        # By signal and block: one tensor per call of the block.
        self._calls: dict[Need, dict[int, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        self.rows: dict[Need, Tensor] = {}
        self.class_rows: Tensor | None = None
        self.views: tuple[int, int] | None = None
        self.merger = None

    @contextmanager
    def recording(self, inputs: dict[str, Any]) -> Iterator[None]:
        """Record while open. Afterwards `rows` and `class_rows` are filled."""
        with ExitStack() as stack:
            taps: dict[int, list[VisionAttention]] = defaultdict(list)
            for need in self.needs:
                if isinstance(need, VisionAttention):
                    for i in self._blocks(need):
                        taps[i].append(need)
                else:
                    for handle in self._hooks(need):
                        stack.callback(handle.remove)
            for i, needs in taps.items():
                block = self.anatomy.blocks(self.modality)[i]
                attention = resolve_path(block, self.anatomy.family.attention)
                stack.enter_context(reading_attention(attention, self._reader(i, needs)))
            if self.anatomy.family.attention is not None:
                first = self.anatomy.blocks(self.modality)[0]
                hook = first.register_forward_pre_hook(self._count_views, with_kwargs=True)
                stack.callback(hook.remove)
            yield
        order = self.anatomy.family.tower_order(self.anatomy.config, self.modality, inputs)
        for need, blocks in self._calls.items():
            parts = [torch.cat(blocks[i]) for i in sorted(blocks)]
            rows = torch.stack(parts, 1) if isinstance(_layer(need), tuple) else parts[0]
            natural = order is None or isinstance(need, ProjectorInput)
            self.rows[need] = rows if natural else rows[on_device(order, rows.device)]

    def _hooks(self, need: Need) -> list[Any]:
        family, anatomy = self.anatomy.family, self.anatomy
        if isinstance(need, ProjectorInput):
            if not family.tokenwise:
                return []
            projector = resolve_path(anatomy.inner, family.projector)

            def before(_, args, kwargs):
                x = args[0] if args else next(iter(kwargs.values()))
                self._calls[need][0].append(self._views(x).flatten(0, 1))

            return [projector.register_forward_pre_hook(before, with_kwargs=True)]
        if isinstance(need, VisionKeys):
            i, block = self._block(need)
            attention = resolve_path(block, family.attention)
            fused = family.key == "qkv"
            heads = getattr(attention, "num_heads", None) or attention.num_attention_heads

            def after(_, args, out):
                if fused:
                    out = out.unflatten(-1, (3, heads, -1)).select(-3, 1)
                else:
                    out = out.unflatten(-1, (heads, -1))
                if out.dim() == 4:
                    out = self._without_class(self._full(i, out, 1)).flatten(0, 1)
                self._calls[need][0].append(out)

            return [resolve_path(attention, family.key).register_forward_hook(after)]
        if isinstance(need, ClassState):
            return self._class_hooks() if family.class_token and family.tokenwise else []
        i, block = self._block(need)

        def after_block(_, args, out):
            out = out[0] if isinstance(out, tuple) else out
            if out.dim() == 3:
                out = self._without_class(self._full(i + 1, out, 1)).flatten(0, 1)
            self._calls[need][0].append(out.reshape(-1, out.shape[-1]))

        return [block.register_forward_hook(after_block)]

    def _class_hooks(self) -> list[Any]:
        """Hooks that record class tokens.

        Where the projector reads several layers, their class tokens are concatenated like patches.
        """
        order = self.anatomy.feature_blocks(self.modality)
        blocks = self.anatomy.blocks(self.modality)
        seen: dict[int, Tensor] = {}

        def after(i: int, _: nn.Module, args: tuple, out: Any) -> None:
            seen[i] = (out[0] if isinstance(out, tuple) else out)[:, 0]
            if seen.keys() == {*order}:
                self.class_rows = torch.cat([seen[j] for j in order], -1)

        return [blocks[i].register_forward_hook(functools.partial(after, i)) for i in {*order}]

    def _count_views(self, _: nn.Module, args: tuple, kwargs: dict) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.dim() == 3:
            self.views = (hidden.shape[0], hidden.shape[1] - self.anatomy.family.class_token)

    def _block(self, need: Need) -> tuple[int, nn.Module]:
        return self.anatomy.vision_block(self.modality, _layer(need))

    def _blocks(self, need: Need) -> list[int]:
        layer = _layer(need)
        if not isinstance(layer, tuple):
            return [self._block(need)[0]]
        self.anatomy.vision_block(self.modality, None)
        blocks = len(self.anatomy.blocks(self.modality))
        chosen = list(range(blocks)[slice(*layer)])
        if not chosen:
            raise UnsupportedModel(
                f"layer={layer} selects no block: the vision encoder has {blocks} blocks "
                f"(0-{blocks - 1}, or {-blocks} to -1)."
            )
        return chosen

    def _alive(self, block: int) -> Tensor | None:
        return None if self.merger is None else self.merger.alive(block)

    def _full(self, block: int, x: Tensor, dim: int) -> Tensor:
        return x if self.merger is None else self.merger.full(block, x, dim)

    def _without_class(self, x: Tensor) -> Tensor:
        return x[:, 1:] if self.anatomy.family.class_token else x

    def _views(self, x: Tensor) -> Tensor:
        """Projector input as (views, patches, C), without class tokens."""
        x = x if x.dim() == 3 else x.unsqueeze(0)
        classed = self.anatomy.family.class_token and self.views is not None
        return x[:, 1:] if classed and x.shape[1] > self.views[1] else x

    def _reader(self, i: int, needs: list[VisionAttention]):
        classed = self.anatomy.family.class_token

        # A checkpointed block is recomputed without this reader. Recomputation must save the same
        # number of tensors, so the reader saves none.
        @torch.no_grad()
        def read(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, **kwargs) -> None:
            bounds = kwargs.get("cu_seq_lens_q")
            if bounds is not None:
                bounds = bounds.tolist()
                spans = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
            else:
                spans = [slice(None)]
            for need in needs:
                if need.rows not in ROWS:
                    raise UnsupportedModel(
                        f"rows={need.rows!r} is not valid; use one of {', '.join(ROWS)}."
                    )
                if need.rows == "cls" and not classed:
                    raise UnsupportedModel(
                        f"The vision encoder of {self.anatomy.family.name} has no class token; "
                        "use score='received' or score='auto'."
                    )
                for span in spans:
                    q, k = query[:, :, span], key[:, :, span]
                    seen = _seen(need, q, k, scaling, mask, classed, self._alive(i))
                    seen = self._full(i, seen, seen.dim() - 1)
                    seen = seen[..., 1:] if classed else seen
                    self._calls[need][i].append(seen.movedim(-1, 1).flatten(0, 1))

        return read


def _seen(
    need: VisionAttention,
    q: Tensor,
    k: Tensor,
    scaling: float,
    mask: Tensor | None,
    classed: bool,
    alive: Tensor | None,
) -> Tensor:
    """Attention scores of one view, (B, H, T), or (B, 2, H, T) with rows="mutual".

    Args:
        need: The signal.
        q: (B, H, T, d) queries.
        k: (B, H, T, d) keys.
        scaling: Factor of the products.
        mask: The attention mask, or None.
        classed: Whether token 0 is a class token.
        alive: (B, T) bool, False at padding; None where no row has padding.
    """
    if need.rows == "mutual":
        return mutual(q, k, scaling, mask, int(classed), alive)
    if need.rows != "received" and classed:
        if need.logits:
            return products(q[:, :, :1], k, scaling)[:, :, 0]
        return probabilities(q[:, :, :1], k, scaling, _first_row(mask))[:, :, 0]
    if need.logits:
        mean = q.mean(2, keepdim=True)
        if alive is not None:
            held = alive[:, None, :, None]
            mean = (q * held).sum(2, keepdim=True) / held.sum(2, keepdim=True)
        return products(mean, k, scaling)[:, :, 0]
    return received(q, k, scaling, mask, alive)


def _layer(need: Need) -> Any:
    return getattr(need, "layer", None)


def _first_row(mask: Tensor | None) -> Tensor | None:
    return mask if mask is None or mask.dim() < 2 else mask[..., :1, :]
