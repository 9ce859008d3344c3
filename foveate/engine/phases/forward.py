"""The start of a forward call of the inner model: is it a prefill, a decode step or both?"""

from __future__ import annotations

from typing import Any

from torch import nn

from foveate.engine.phases.candidates import prompt_first, without_cache
from foveate.engine.phases.decode import decode
from foveate.engine.phases.encode import encode, pictured
from foveate.engine.phases.prefill import prefill
from foveate.engine.prompt.host_copy import read
from foveate.engine.prompt.prompt import cache_in, starts_prompt
from foveate.engine.refusals import refuse_batching
from foveate.engine.setup import Setup
from foveate.engine.state import ModelCall, ThreadState
from foveate.errors import UnsupportedCall


def forward(
    setup: Setup, state: ThreadState, call: ModelCall, inner: nn.Module, kw: dict[str, Any]
) -> dict[str, Any]:
    """The arguments that the inner model shall run with.

    Args:
        setup: the attached method.
        state: of this thread.
        call: this call, which learns its phase.
        inner: the inner model.
        kw: the arguments that it was called with, by name.
    """
    cache = cache_in(kw)
    if cache is not None and not hasattr(cache, "layers"):
        refuse_batching()
    outputs = {m: o for m, o in (kw.get("mm_encoder_outputs") or {}).items() if o is not None}
    inside_generate = bool(outputs)
    # Ids are read before the encoder is launched: later the copy would wait for it.
    known = None if inside_generate or not pictured(setup.anatomy, kw) else read(kw)
    for modality in setup.anatomy.modalities:
        if outputs.get(modality) is None:
            encoded = encode(setup.anatomy, inner, modality, kw)
            if encoded is not None:
                outputs[modality] = encoded
    ids = kw.get("input_ids")
    # `starts_prompt` comes last: a static cache keeps its length on the device.
    if ids is None and (outputs or starts_prompt(kw)):
        raise UnsupportedCall(
            "Visual tokens can't be found in inputs_embeds; pass input_ids with placeholders."
        )
    if not outputs and not (setup.rules.textual and starts_prompt(kw)):
        return decode(setup, call, kw)
    if ids.shape[1] == 1 and outputs:
        return decode(setup, call, kw)
    candidates = without_cache(setup, state, kw) if inside_generate else 0
    if candidates:
        return prompt_first(setup, call, inner, kw, outputs, candidates, lend=True)
    keep = call.targets.logits_to_keep
    if inside_generate and isinstance(keep, int) and keep > 1:
        # An assistant model proposed candidates; their logits are wanted too.
        return prompt_first(setup, call, inner, kw, outputs, candidates=keep - 1)
    if inside_generate and state.known is not None:
        known = state.known.behind(ids)
    kw = prefill(setup, call, kw, outputs, known or read(kw))
    reads_text = not setup.method.prompt_agnostic
    call.prompt.open_end = inside_generate and reads_text and not setup.counts_logits
    return kw
