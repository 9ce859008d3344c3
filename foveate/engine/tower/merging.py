"""Token merging inside the vision encoder.

The encoder's blocks run on the merged, shorter sequence. After the last block every merged token is
copied back to all its slots, so the projector of any model family gets its usual length. Before the
LLM the copies become one token again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveate.contract_checks import check_merge
from foveate.engine.anatomy import Anatomy
from foveate.engine.attention_taps import implementation, probabilities, received
from foveate.engine.scores import slug_of
from foveate.engine.tower.dual_encoder import DualEncoder
from foveate.errors import UnsupportedCall, UnsupportedModel
from foveate.ops.matching import merge
from foveate.parts import BlockState, EncodersPart


class Merger:
    """Runs the blocks of one vision encoder with token merging between attention and MLP."""

    def __init__(self, anatomy: Anatomy | DualEncoder, modality: str, parts: list[EncodersPart]):
        if not anatomy.family.merges:
            raise UnsupportedModel(
                f"The vision encoder of {anatomy.family.name} does not support token merging, "
                "because its visual tokens are not single patches of a transformer; use a method "
                "before the LLM, such as VisionZip."
            )
        self.parts = parts
        self.even = all(part.even for part in parts)
        self.blocks = anatomy.blocks(modality)
        self.tower = anatomy.tower(modality)
        self.count, _ = anatomy.vision_block(modality, None)
        self.count += 1
        self.classed = anatomy.family.class_token
        self.distilled = anatomy.family.distill_token
        self.assign: Tensor | None = None
        self.size: Tensor | None = None
        self.history: list[Tensor | None] = []
        self.widths: list[int] = []
        self.entered = 0
        # Slugs, and scores (R,) of the encoder's patch rows, if the caller asked for scores.
        self.scores: list[tuple[str, Tensor]] | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """While open, the encoder merges tokens. Afterwards `clusters` has the result."""
        with ExitStack() as stack:
            stack.callback(self.tower.register_forward_pre_hook(self._forget).remove)
            for i, block in enumerate(self.blocks):
                block.__dict__["forward"] = self._forward(i, block)
                stack.callback(block.__dict__.pop, "forward", None)
            stack.callback(self.tower.register_forward_hook(self._restore).remove)
            yield

    def begin(self, size: Tensor, assign: Tensor | None = None) -> None:
        """Start a call.

        Args:
            size: (B, T), number of patches that each token stands for, 0 at padding.
            assign: (B, T'), the token that each row of the full layout belongs to. None where each
                row is its own token.
        """
        self.size, self.assign, self.history = size, assign, [assign]
        self.widths = [size.shape[1]]
        self.entered = size.shape[1] - self.classed - self.distilled

    def full(self, block: int, x: Tensor, dim: int) -> Tensor:
        """Copy values per token at the input of a block to all rows of the full layout."""
        assign = self.history[block]
        if assign is None:
            return x
        shape = [1] * x.dim()
        shape[0], shape[dim] = assign.shape
        index = assign.reshape(shape).expand(*x.shape[:dim], -1, *x.shape[dim + 1 :])
        return x.gather(dim, index)

    def alive(self, block: int) -> Tensor | None:
        """(B, T) bool: tokens at the input of a block, False at padding; None without padding."""
        assign = self.history[block]
        if assign is None or self.even:
            return None
        held = assign.amax(1, keepdim=True) + 1
        steps = torch.arange(int(held.max()), device=assign.device)
        return None if bool((held == len(steps)).all()) else steps < held

    def lengths(self, views: int, entered: int) -> list[list[int]]:
        """Tokens of each crop or frame in each block. A block that merges counts its input."""
        history = self.history[: len(self.blocks)]
        if self.even:
            pairs = zip(history, self.widths, strict=False)
            return [[entered if a is None else width for a, width in pairs]] * views
        merged = [a.amax(1) + 1 for a in history if a is not None]
        counts = iter(torch.stack(merged).tolist() if merged else ())
        kept = [[entered] * views if a is None else next(counts) for a in history]
        return [list(view) for view in zip(*kept, strict=True)]

    @property
    def left(self) -> int | None:
        """Patches of every crop or frame that leave the encoder; None where they may differ."""
        return self.widths[-1] - self.classed - self.distilled if self.even else None

    @property
    def clusters(self) -> Tensor | None:
        """Number (R,) of the merged token of every patch row; None where nothing merged."""
        assign = self.history[min(self.count, len(self.history) - 1)]
        if assign is None:
            return None
        patches = assign[:, self.classed + self.distilled :]
        views = torch.arange(len(patches), device=patches.device)[:, None]
        return (patches + views * assign.shape[1]).flatten()

    def _forward(self, i: int, block: nn.Module):
        def forward(hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any):
            if self.size is None:
                self.begin(hidden_states.new_ones(hidden_states.shape[:2]))
            mask = self._bias(block, attention_mask)
            beside = self._beside(i, hidden_states) if i < self.count else []
            extra = sum(x.shape[1] for x in beside)
            if extra and mask is not None:
                mask = nn.functional.pad(mask, (extra, 0, 0 if mask.shape[-2] == 1 else extra, 0))
            with _projections(block.self_attn) as made:
                normed = block.layer_norm1(torch.cat([*beside, hidden_states], 1))
                attended, _ = block.self_attn(hidden_states=normed, attention_mask=mask, **kwargs)
            hidden = hidden_states + attended[:, extra:]
            if i < self.count:
                hidden = self._merge(i, hidden, block.self_attn, made, mask, extra)
            self.history.append(self.assign)
            self.widths.append(self.size.shape[1])
            return hidden + block.mlp(block.layer_norm2(hidden))

        return forward

    def _forget(self, _: nn.Module, args: tuple) -> None:
        self.size = None

    def _bias(self, block: nn.Module, mask: Tensor | None) -> Tensor | None:
        if self.assign is None:
            return mask
        # The size of padding is 0, its log is -inf: no token attends to it.
        weight = self.size
        if not all(p.proportional for p in self.parts):
            if self.even or bool((weight > 0).all()):
                return mask
            weight = weight.clamp(max=1)
        if "flash" in implementation(block.self_attn):
            raise UnsupportedCall(
                "FlashAttention does not support the size bias of merged tokens in the vision "
                "encoder; use attn_implementation='sdpa' for it, or ToMe with prop_attn=False."
            )
        bias = weight.log()[:, None, None, :]
        return bias if mask is None else mask + bias

    def _beside(self, i: int, hidden: Tensor) -> list[Tensor]:
        """Extra keys and values that the parts add to the tokens (B, T, C) of block i."""
        state = hidden[:, 0] if self.classed else hidden.mean(1)
        found = [part.beside(i, self.count, state) for part in self.parts]
        return [x for x in found if x is not None]

    def _merge(
        self,
        i: int,
        hidden: Tensor,
        attention: Any,
        made: dict[str, Tensor],
        mask: Tensor | None,
        extra: int,
    ) -> Tensor:
        """Merge the tokens of block i.

        Args:
            i: Index of the block.
            hidden: (B, T, C) after attention.
            attention: The attention module of the block.
            made: Queries and keys of the block; the first `extra` rows are not tokens.
            mask: The attention mask, or None.
            extra: Number of vectors that `beside` added.
        """

        def seen() -> Tensor:
            if merged:
                raise UnsupportedCall(
                    f"{type(part).__name__} ranks tokens by attention, but "
                    f"{type(merged[0]).__name__} has merged tokens in the same block, and merged "
                    "tokens have no attention scores; use only one of the two methods."
                )
            q, k = (x.transpose(1, 2) for x in (made["q_proj"], made["k_proj"]))
            if self.classed:
                rows = probabilities(q[:, :, extra : extra + 1], k, attention.scale, mask)[:, :, 0]
            else:
                rows = received(q[:, :, extra:], k, attention.scale, mask)
            return rows[..., extra:]

        merged: list[EncodersPart] = []
        keys = made["k_proj"][:, extra:]
        for part in self.parts:
            state = BlockState(
                hidden,
                keys.transpose(1, 2),
                self.size,
                self.classed,
                self.entered,
                seen,
                self.distilled,
                self.even,
                partial(self._note, part),
            )
            plan = check_merge(part, part.merge(i, self.count, state), self.size)
            if plan is None:
                continue
            merged.append(part)
            assign, count, *_ = plan
            hidden, self.size = fused(plan, hidden, self.size)
            keys = merge(keys.flatten(2), assign, count).unflatten(2, keys.shape[2:])
            self.assign = assign if self.assign is None else assign.gather(1, self.assign)
        return hidden

    def _note(self, part: EncodersPart, scores: Tensor) -> None:
        """Keep the scores (B, P) of the patches that are left, for all rows that they stand for."""
        if self.scores is None:
            return
        skip, own = self.classed + self.distilled, scores.detach().float()
        if self.assign is not None:
            own = own.gather(1, self.assign[:, skip:] - skip)
        self.scores.append((slug_of(part), own.flatten()))

    def _restore(self, _: nn.Module, args: tuple, output: Any) -> Any:
        last = len(self.history) - 1
        output.last_hidden_state = self.full(last, output.last_hidden_state, 1)
        if getattr(output, "hidden_states", None) is not None:
            output.hidden_states = tuple(
                # States that were not requested are None.
                None if h is None else self.full(min(j, last), h, 1)
                for j, h in enumerate(output.hidden_states)
            )
        return output


def fused(plan: tuple, hidden: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Merge tokens (B, T, C) of `size` (B, T) by the result of `EncodersPart.merge`.

    Returns the merged tokens and their sizes.
    """
    assign, count, *weights = plan
    total = merge(size[..., None], assign, count, "sum")
    share = (weights[0] if weights else size)[..., None].to(hidden.dtype)
    hidden = merge(hidden * share, assign, count, "sum")
    if not weights:
        # The size of padding is 0.
        hidden = hidden / total.clamp(min=1)
    return hidden, total[..., 0]


@contextmanager
def _projections(attention: Any) -> Iterator[dict[str, Tensor]]:
    """Queries and keys (B, T, H, d) that an attention module computes while open, by name."""
    made: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(_: nn.Module, args: tuple, out: Tensor) -> None:
            made[name] = out.unflatten(-1, (attention.num_heads, -1))

        return getattr(attention, name).register_forward_hook(hook)

    handles = [keep("q_proj"), keep("k_proj")]
    try:
        yield made
    finally:
        for handle in handles:
            handle.remove()
