"""TC-LLaVA: tokens of a frame share a moment and see each other; time and order both turn.

Gao et al., "TC-LLaVA: Rethinking the Transfer from Image to Video Understanding with Temporal
Considerations", AAAI 2025, arXiv 2409.03206.

Every token keeps its place g in the sequence and gets a moment u, which each frame and each word
moves on by one: all tokens of a frame share it. Rotating by g and then by gamma u is one rotation
by g + gamma u, in the prompt and for every token behind it. While the prompt runs, tokens of one
frame see each other both ways; all else stays causal.

Needs frames only. Costs no attention beyond the model's own; reduces nothing, so add a method that
does. Ids reach twice the length of the prompt. A picture is one frame, and with three rows of ids
(M-RoPE) all three are the same. No official code was found: ids are those of the comparison in
VideoRoPE (Wei et al., 2025), except that padding moves nothing on. `text_temporal="zero_delta"` is
ours: words don't move u on, so that plain text is as ever. `foveate train --method tc_llava` tunes
a model to it; the run on nano, whose pictures have no time, is in perf/results/tc_llava.md.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.TCLLaVA(gamma=0.5)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from torch import Tensor

from foveate.attention_call import Attend, AttentionCall, Columns
from foveate.method import Method, register
from foveate.parts import RulePart


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class TCLLaVA(Method, RulePart):
    """gamma: weight of the moment in the position. block_mask: frames see themselves both ways.

    text_temporal: "advance" moves on by one for each word, "zero_delta" for frames only.
    """

    slug = "tc_llava"
    paper = "arXiv 2409.03206"
    trained = True
    reduces = False
    prompt_only = True
    bare: ClassVar[Mapping[str, Any]] = MappingProxyType({"gamma": 0.0, "block_mask": False})

    positions: str = "original"
    gamma: float = 1.0
    block_mask: bool = True
    text_temporal: Literal["advance", "zero_delta"] = "advance"

    @property
    def textual(self) -> bool:  # type: ignore[override]
        """Whether plain text is placed otherwise too."""
        return self.gamma != 0 and self.text_temporal == "advance"

    def layers(self, n: int) -> tuple[int, ...]:
        return tuple(range(n)) if self.gamma or self.block_mask else ()

    def place(self, columns: Columns, notes: dict[str, Tensor]) -> Tensor | None:
        if not self.gamma:
            return None
        return columns.order + self.gamma * moments(columns, self.text_temporal)

    def attend(self, call: AttentionCall, proceed: Attend) -> Tensor:
        if not (self.block_mask and any(call.queries.counts[1])):
            return proceed(call)
        own = call.queries.visual & call.queries.valid
        return call.in_blocks(proceed, visible, call.queries.frames.where(own, -1))[0]


def moments(columns: Columns, text: str = "advance") -> Tensor:
    """Temporal id (B, N) of every column, from 0 on: frames, and words too where they count."""
    return columns.frames + columns.words - 1 if text == "advance" else columns.frames


def visible(call: AttentionCall) -> Tensor:
    """What each row sees, (B, 1 or H, q, K) bool: what is earlier, and all of its own frame."""
    return call.seen() | same_frame(call.queries, call.keys)[:, None]


def same_frame(queries: Columns, keys: Columns) -> Tensor:
    """Pairs (B, q, K) bool of visual tokens that belong to one frame."""
    both = (queries.visual & queries.valid)[:, :, None] & (keys.visual & keys.valid)[:, None, :]
    return both & (queries.frames[:, :, None] == keys.frames[:, None, :])
