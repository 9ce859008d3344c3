"""Calls that bring a prompt and generated tokens at once: the prompt runs first, by itself.

Assisted decoding appends candidates to the prompt, and `generate` without a cache appends what it
has generated. A method must not take these tokens for a part of the question.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from foveate.engine.phases.decode import decode
from foveate.engine.prompt.prompt import cache_in
from foveate.engine.prompt.splice import TYPE_NAMES
from foveate.engine.setup import Setup
from foveate.engine.state import ModelCall, ThreadState
from foveate.errors import UnsupportedCall


def without_cache(setup: Setup, state: ThreadState, kw: dict[str, Any]) -> int:
    """Columns that `generate` without a cache has appended to its prompt.

    0 where it makes no difference: no part reads the text and none acts inside the LLM.
    """
    inside = setup.inside_llm or not setup.method.prompt_agnostic
    if state.prompted is None or not inside or cache_in(kw) is not None:
        return 0
    return max(0, kw["input_ids"].shape[1] - state.prompted)


def prompt_first(
    setup: Setup,
    call: ModelCall,
    inner: nn.Module,
    kw: dict[str, Any],
    outputs: dict[str, Any],
    candidates: int,
    lend: bool = False,
) -> dict[str, Any]:
    """Run the prompt in a call of its own, and return the arguments for the candidates after it.

    Args:
        setup: the attached method.
        call: the call of both.
        inner: the inner model.
        kw: arguments of the call.
        outputs: encoder outputs by modality.
        candidates: how many of the last columns are candidates.
        lend: whether to use a cache for this call that the caller did not ask for.
    """
    if lend:
        call.lent_cache = "cache" if "cache" in kw else "past_key_values"
        kw = {**kw, call.lent_cache: DynamicCache(config=setup.anatomy.text.config)}
    length = kw["input_ids"].shape[1] - candidates
    first = {**kw, "mm_encoder_outputs": outputs}
    # Candidates are text, like all that is generated, so they have no token types.
    rest = {**kw, "mm_encoder_outputs": None, **dict.fromkeys(kw.keys() & {*TYPE_NAMES})}
    for name in ("input_ids", "position_ids", *TYPE_NAMES):
        if kw.get(name) is not None:
            first[name] = kw[name][..., :length]
    for name in ("input_ids", "position_ids"):
        if kw.get(name) is not None:
            rest[name] = kw[name][..., length:]
    if kw.get("attention_mask") is not None:
        first["attention_mask"] = kw["attention_mask"][:, :length]
    prompt_output = inner(**first)
    rest = decode(setup, call, rest)
    call.prompt_output = prompt_output
    return rest


def join_outputs(output: Any, prompt_output: Any) -> None:
    """Put the output of the prompt before that of its candidates, in place."""
    if output.get("attentions") is not None:
        raise UnsupportedCall(
            "The attention maps of a shortened prompt and of the candidates after it do not form "
            "one map; generate with an assistant model without output_attentions."
        )
    both = [prompt_output.last_hidden_state, output.last_hidden_state]
    output.last_hidden_state = torch.cat(both, 1)
    if output.get("hidden_states") is not None:
        layers = zip(prompt_output.hidden_states, output.hidden_states, strict=True)
        output.hidden_states = tuple(torch.cat(pair, 1) for pair in layers)
