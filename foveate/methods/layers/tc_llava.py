"""Change attention in the LLM: temporal position ids, and full attention within each frame.

Gao et al., "TC-LLaVA: Rethinking the Transfer from Image to Video Understanding with Temporal
Considerations", AAAI 2025, arXiv 2409.03206.

Rule: every token keeps its position id g and gets a temporal id u in addition. u increases by one
with each frame and with each text token; all tokens of a frame have the same u. The rotary
embedding uses

    g + gamma u

as position, in the prompt and for every generated token; gamma is a weight. During prefill, tokens
of one frame attend to each other in both directions; everything else stays causal.

Needs: which frame every token belongs to.

Cost: none beyond the model's own attention.

Differences: no official code was found. Position ids are those of the comparison in VideoRoPE (Wei
et al., 2025), except that padding does not count. `text_temporal="zero_delta"` is an addition: text
tokens do not increase u, so that text alone runs as before.

Notes: it drops no tokens, so add a method that does. Position ids reach twice the length of the
prompt. An image is one frame, and in models with M-RoPE all three ids are the same. `foveate train
--method tc_llava` tunes a model to it; the run on nano, whose images have no time, is in
perf/results/tc_llava.md.

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
    """TC-LLaVA; the docstring of its module states the rule.

    Attributes:
        keep: always 1.0, because the method drops no tokens.
        gamma: weight of the temporal id in the position; 0.0 leaves positions as they are.
        block_mask: tokens of one frame attend to each other in both directions.
        text_temporal: "advance" increases the temporal id with each text token too, "zero_delta"
            with frames only.
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
        """Whether text alone gets other positions too."""
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
    """Temporal id (B, N) of every column, from 0 on, counting frames, and text where it counts."""
    return columns.frames + columns.words - 1 if text == "advance" else columns.frames


def visible(call: AttentionCall) -> Tensor:
    """What queries may attend to, (B, 1 or H, q, K) bool: earlier tokens and all of their frame."""
    return call.seen() | same_frame(call.queries, call.keys)[:, None]


def same_frame(queries: Columns, keys: Columns) -> Tensor:
    """Pairs (B, q, K) bool of visual tokens that belong to one frame."""
    both = (queries.visual & queries.valid)[:, :, None] & (keys.visual & keys.valid)[:, None, :]
    return both & (queries.frames[:, :, None] == keys.frames[:, None, :])
