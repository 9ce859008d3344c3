"""Change attention in the LLM: no rotary position between queries and visual keys.

Ma et al., "Vista-LLaMA: Reducing Hallucination in Video Language Models via Equal Distance to
Visual Tokens", CVPR 2024, arXiv 2312.08870.

Rule: q_j and k_i are queries and keys before rotation, and R_j is the rotation of position j. The
attention logit of query j and key i is

    q_j k_i where i is visual
    (R_j q_j)(R_i k_i) where i is text

So the distance to visual tokens has no effect, however long the answer grows. Which case applies
depends on the key alone, so one attention kernel computes both: it gets queries [R q; q], keys [R
k; 0] for text and [0; k] for visual tokens, and the scale of the model. Visual keys are cached
without rotation, text keys with it.

Needs: nothing besides the tokens.

Cost: queries and keys of twice the head width during prefill.

Differences: in the paper's text only text queries read visual keys without rotation; in its code,
which is the default here, visual queries do so too. `visual_query="rope"` follows the text.

Notes: it drops no tokens, so add a method that does. The few tokens per video of the paper come
from its projector, `foveate.methods.projectors.vista_llama`. The paper trains a projector with the
rule in place and keeps the LLM frozen. Without that projector, `foveate train --method vista_llama`
tunes the LLM itself to the rule; its runs on the embedded models are in perf/results/vista_llama.md
and vista_llama_image.md.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.VistaLLaMA(layer_list=(0, 1))):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from foveate.attention_call import Attend, AttentionCall, Columns
from foveate.method import Method, register
from foveate.parts import RulePart


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class VistaLLaMA(Method, RulePart):
    """Vista-LLaMA's attention; the docstring of its module states the rule.

    Attributes:
        keep: always 1.0, because the method drops no tokens.
        layer_list: 0-based LLM layers that use the rule; None for all.
        visual_query: queries that read visual keys without rotation: "raw" for all queries, "rope"
            for text queries only.
    """

    slug = "vista_llama"
    paper = "arXiv 2312.08870"
    trained = True
    reduces = False
    bare: ClassVar[Mapping[str, Any]] = MappingProxyType({"layer_list": ()})

    positions: str = "original"
    layer_list: tuple[int, ...] | None = None
    visual_query: Literal["raw", "rope"] = "raw"

    def layers(self, n: int) -> tuple[int, ...]:
        return tuple(range(n)) if self.layer_list is None else self.layer_list

    def raw(self, columns: Columns) -> Tensor:
        return columns.visual

    def attend(self, call: AttentionCall, proceed: Attend) -> Tensor:
        # New tokens are always text.
        halves, some = call.once(lambda: _halves(call)), call.prefill
        is_visual = call.queries.visual[:, None, :, None]
        rotated = (
            torch.where(is_visual, call.turned(call.query), call.query) if some else call.query
        )
        unrotated = call.turned(rotated, back=True)
        if call.seam.alone and not call.prefill:
            # With few queries, two products are cheaper than rearranging all keys.
            visual = call.keys.visual[:, None, None, :]
            near, far = call.products(torch.cat([rotated, unrotated], 2)).chunk(2, 2)
            return call.weighed(call.weights(torch.where(visual, far, near)))
        # One multiplication instead of filling and joining two copies.
        key = (call.key[..., None, :] * halves.to(call.key.dtype)).flatten(-2)
        queries, keys = [rotated, unrotated], [key]
        if self.visual_query == "rope" and some:
            queries[1] = unrotated.masked_fill(is_visual, 0)
            queries.append(rotated.masked_fill(~is_visual, 0))
            keys.append(call.rotated(key[..., call.key.shape[-1] :], call.keys.positions))
        wide = replace(call, query=torch.cat(queries, -1), key=torch.cat(keys, -1))
        call.account((call.pair_cost() - wide.pair_cost()) * call.bare_pairs())
        return proceed(wide)


def _halves(call: AttentionCall) -> Tensor:
    """Which half of the doubled width each key uses, (B, 1, K, 2, 1)."""
    visual = call.keys.visual
    return torch.stack([~visual, visual], -1)[:, None, :, :, None]
