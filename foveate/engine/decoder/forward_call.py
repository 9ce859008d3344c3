"""One forward call of the decoder: what its layer hooks share."""

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
    """What a decoder layer that some columns skip needs again after it has run.

    Attributes:
        hidden: the layer's input before any column was left out, (B, N, D).
        column: column of the shorter input for each of the N columns, (B, N); -1 for a column that
            skips the layer. None where no column skips it.
        gate: see `Detour`.
        follow: see `Detour`.
    """

    hidden: Tensor
    column: Tensor | None
    gate: Tensor | None
    follow: Tensor | None


@dataclass
class DecoderCall:
    """One forward call of the decoder: what all its layer hooks share.

    prefill: stages are being made; otherwise they are read. start: columns behind the prompt that
    the cache holds before this call. labels (B, L): training targets. positions: ids of the new
    columns as the caller counts them, in a decode step. later (B, new): the caller's mask of
    columns behind the prompt, None where none is padding. seen: signals of finished layers, (B, H,
    N, ...). heads: of finished layers, until the boundary behind them. merges: boundary, stage that
    reached it, what merged there. notes: of each part, by its id. soft (B, N of the first stage):
    what is added to the logits of keys. tables, masks: what layers behind a boundary, or under the
    same rules, share, made once. around: what goes around the layer that is running. towered:
    signals of the vision tower at the first stage's columns, (B, H, N). idle: no layer behind a
    boundary needs anything else than the model gives it, unless it gives a mask. over: the call has
    returned; what runs now is computed again for gradients. planes: DeepStack features (B, N of the
    first stage, D) that are added behind early layers. padded_positions: the caller gave no
    position ids, and the model counts padding in front of rows.
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
    towered: dict[VisionAttention, Tensor] = field(default_factory=dict)
    idle: bool = False
    planes: list[Tensor] = field(default_factory=list)
    over: bool = False
    padded_positions: bool = False

    @cached_property
    def behind(self) -> Tensor | None:
        """Which columns (B, new) behind the prompt are no padding; None for all."""
        return None if self.later is None else self.later.bool()

    def soften(self, log_weight: Tensor, stage: Stage) -> None:
        """Add to the logits of the visual columns of a stage, in all layers from here on."""
        first = self.prompt.first
        if self.soft is None:
            self.soft = log_weight.new_zeros(first.item.shape)
        visual = stage.item >= 0
        self.soft = self.soft.scatter_add(1, stage.first_column, log_weight.masked_fill(~visual, 0))
        self.prompt.soft = True
