"""Recording what parts ask to see of the vision tower, as values per tower row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.anatomy import Anatomy
from foveate.engine.taps import probabilities, received, tapped
from foveate.errors import UnsupportedModel
from foveate.families.base import resolve_path
from foveate.signals import (
    ClassState,
    Need,
    ProjectorInput,
    VisionAttention,
    VisionKeys,
    VisionStates,
)

VISION_NEEDS = (VisionAttention, VisionKeys, VisionStates, ProjectorInput, ClassState)


class VisionRecorder:
    """Collects the asked signals while one `get_*_features` call runs.

    rows: need -> (R, ...) values per tower patch row in natural order. class_rows: (views, C).
    """

    def __init__(self, anatomy: Anatomy, modality: str, needs: tuple[Need, ...]):
        self.anatomy = anatomy
        self.modality = modality
        self.needs = [n for n in dict.fromkeys(needs) if isinstance(n, VISION_NEEDS)]
        self._calls: dict[Need, list[Tensor]] = defaultdict(list)
        self.rows: dict[Need, Tensor] = {}
        self.class_rows: Tensor | None = None
        self.merger = None

    @contextmanager
    def armed(self, inputs: dict[str, Any]) -> Iterator[None]:
        """Record while open; afterwards `rows` and `class_rows` are filled."""
        with ExitStack() as stack:
            taps: dict[int, list[VisionAttention]] = defaultdict(list)
            for need in self.needs:
                if isinstance(need, VisionAttention):
                    taps[self._block(need)[0]].append(need)
                else:
                    handle = self._hook(need)
                    if handle is not None:
                        stack.callback(handle.remove)
            for i, needs in taps.items():
                block = self.anatomy.blocks(self.modality)[i]
                attention = resolve_path(block, self.anatomy.family.attention)
                stack.enter_context(tapped(attention, self._reader(i, needs)))
            yield
        order = self.anatomy.family.tower_order(self.anatomy.config, self.modality, inputs)
        for need, parts in self._calls.items():
            rows = torch.cat(parts)
            natural = order is None or isinstance(need, ProjectorInput)
            self.rows[need] = rows if natural else rows[order.to(rows.device)]

    def _hook(self, need: Need):
        family, anatomy = self.anatomy.family, self.anatomy
        if isinstance(need, ProjectorInput):
            if not family.tokenwise:
                return None
            projector = resolve_path(anatomy.inner, family.projector)

            def before(_, args, kwargs):
                x = args[0] if args else next(iter(kwargs.values()))
                self._calls[need].append(self._views(x).flatten(0, 1))

            return projector.register_forward_pre_hook(before, with_kwargs=True)
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
                self._calls[need].append(out)

            return resolve_path(attention, family.key).register_forward_hook(after)
        if isinstance(need, ClassState) and not (family.class_token and family.tokenwise):
            return None
        i, block = self._block(need)

        def after_block(_, args, out):
            out = out[0] if isinstance(out, tuple) else out
            if isinstance(need, ClassState):
                self.class_rows = out[:, 0]
                return
            if out.dim() == 3:
                out = self._without_class(self._full(i + 1, out, 1)).flatten(0, 1)
            self._calls[need].append(out.reshape(-1, out.shape[-1]))

        return block.register_forward_hook(after_block)

    def _block(self, need: Need) -> tuple[int, nn.Module]:
        return self.anatomy.vision_block(self.modality, getattr(need, "layer", None))

    def _full(self, block: int, x: Tensor, dim: int) -> Tensor:
        return x if self.merger is None else self.merger.full(block, x, dim)

    def _without_class(self, x: Tensor) -> Tensor:
        return x[:, 1:] if self.anatomy.family.class_token else x

    def _views(self, x: Tensor) -> Tensor:
        """Projector input as (views, patches, C), without class rows that some families project."""
        x = x if x.dim() == 3 else x.unsqueeze(0)
        if self.modality == "video" and self.anatomy.family.projects_class:
            return x[:, 1:]
        return x

    def _reader(self, i: int, needs: list[VisionAttention]):
        classed = self.anatomy.family.class_token

        def read(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, **kwargs) -> None:
            bounds = kwargs.get("cu_seq_lens_q")
            if bounds is not None:
                bounds = bounds.tolist()
                spans = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
            else:
                spans = [slice(None)]
            for need in needs:
                if need.rows not in ("auto", "cls", "received"):
                    raise UnsupportedModel(f"rows={need.rows!r} is no way to read attention.")
                if need.rows == "cls" and not classed:
                    raise UnsupportedModel(
                        f"The vision tower of {self.anatomy.family.name} has no class token; "
                        "use score='received', or score='auto'."
                    )
                for span in spans:
                    q, k = query[:, :, span], key[:, :, span]
                    if need.rows != "received" and classed:
                        seen = probabilities(q[:, :, :1], k, scaling, _first_row(mask))[:, :, 0]
                    else:
                        seen = received(q, k, scaling, mask)
                    seen = self._full(i, seen, 2)
                    seen = seen[..., 1:] if classed else seen
                    self._calls[need].append(seen.transpose(1, 2).flatten(0, 1))

        return read


def _first_row(mask: Tensor | None) -> Tensor | None:
    return mask if mask is None or mask.dim() < 2 else mask[..., :1, :]
