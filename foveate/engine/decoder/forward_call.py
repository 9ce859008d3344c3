"""State that the layer hooks of one decoder call share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from foveate.engine.prompt.prompt import Prompt, Stage
from foveate.ops.attention import Heads
from foveate.parts import Merge
from foveate.signals import DecoderAttention, DecoderKeys, DecoderTransition, VisionAttention


@dataclass(eq=False)
class LayerSkip:
    """State from the start to the end of a decoder layer that some columns skip.

    Attributes:
        hidden: (B, N, D) hidden states of all columns before the layer.
        column: (B, N) int, column of the layer's shorter input for each column; -1 for a column
            that skips the layer. None where none skips it.
        gate: See `Detour`.
        follow: See `Detour`.
    """

    hidden: Tensor
    column: Tensor | None
    gate: Tensor | None
    follow: Tensor | None


@dataclass
class DecoderCall:
    """State of one forward call of the decoder, shared by all its layer hooks.

    Attributes:
        prompt: The prompt.
        prefill: True in prefill, where stages are added to the prompt; False in decode.
        start: Columns after the prompt that are in the cache before this call.
        labels: (B, L) training targets, or None.
        positions: Position ids of the new columns in the full sequence, in a decode step.
        later: (B, new) the caller's mask of the columns after the prompt; None without padding.
        seen: Signals of layers that have run, (B, H, N, ...).
        heads: Queries and keys of layers that have run, until the next boundary.
        merges: (boundary, stage before it, what merged there).
        notes: Notes of each part, by its id.
        soft: (B, N0) weights that are added to the logits of keys, at first columns.
        tables: Rotary tables and facts that layers share.
        masks: Attention masks that layers share.
        skip: Set while a layer runs that some columns skip.
        vision_signals: (B, H, N0) signals of the vision encoder, at first columns.
        idle: No hook needs to change a layer in this decode step, unless the model passes a mask.
        planes: (B, N0, D) DeepStack features of early layers, at first columns.
        over: The call has returned. A layer that runs now is recomputed for gradients.
        padded_positions: The caller passed no position ids, and the model counts padding before a
            row.
    """

    prompt: Prompt
    prefill: bool
    start: int = 0
    labels: Tensor | None = None
    positions: Tensor | None = None
    later: Tensor | None = None
    seen: dict[DecoderAttention | DecoderKeys | DecoderTransition, Tensor] = field(
        default_factory=dict
    )
    heads: dict[int, Heads] = field(default_factory=dict)
    merges: list[tuple[int, Stage, Merge]] = field(default_factory=list)
    notes: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    soft: Tensor | None = None
    tables: dict[tuple, Any] = field(default_factory=dict)
    masks: dict[tuple, Any] = field(default_factory=dict)
    skip: LayerSkip | None = None
    vision_signals: dict[VisionAttention, Tensor] = field(default_factory=dict)
    idle: bool = False
    planes: list[Tensor] = field(default_factory=list)
    over: bool = False
    padded_positions: bool = False

    @cached_property
    def behind(self) -> Tensor | None:
        """(B, new) bool, False at padding after the prompt; None where there is none."""
        return None if self.later is None else self.later.bool()

    def soften(self, log_weight: Tensor, stage: Stage) -> None:
        """Add weights to the attention logits of a stage's visual columns, from here on."""
        first = self.prompt.first
        if self.soft is None:
            self.soft = log_weight.new_zeros(first.item.shape)
        visual = stage.item >= 0
        self.soft = self.soft.scatter_add(1, stage.first_column, log_weight.masked_fill(~visual, 0))
        self.prompt.soft = True
