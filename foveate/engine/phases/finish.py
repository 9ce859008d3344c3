"""The end of a forward call of the inner model: its prompt goes to the cache and the report."""

from __future__ import annotations

from typing import Any

from transformers import Cache

from foveate.engine.cache.provenance import tag
from foveate.engine.phases.candidates import join_outputs
from foveate.engine.prompt.prompt import cache_in
from foveate.engine.setup import Setup
from foveate.engine.state import ModelCall


def finish(setup: Setup, call: ModelCall, kw: dict[str, Any], output: Any) -> None:
    """Store the prompt with the cache that it filled, and make the output what the caller expects.

    Args:
        setup: the attached method.
        call: the call that ends.
        kw: the arguments that it ran with.
        output: what the inner model returned, changed in place.
    """
    if call.prompt is not None:
        cache = _cache_of(output, kw)
        if cache is not None:
            tag(cache, call.prompt, setup.method)
        call.targets.follow(call.prompt)
    if call.filled is not None:
        call.filled.new += call.new_columns
    if call.prompt_output is not None:
        join_outputs(output, call.prompt_output)
    if call.lent_cache is not None:
        setattr(output, call.lent_cache, None)


def report(setup: Setup, call: ModelCall) -> None:
    """Give the reporter the prompt that a call ran, if it ran one."""
    if call.prompt is not None and call.prompt.clock is not None:
        setup.reporter.add(call.prompt, call.encoder_runs, call.prompt.clock)
    elif call.text_prompt is not None:
        setup.reporter.add(call.text_prompt)


def _cache_of(output: Any, kw: dict[str, Any]) -> Cache | None:
    given = cache_in(kw)
    if given is not None:
        return given
    if isinstance(output, tuple):
        return next((x for x in output if isinstance(x, Cache)), None)
    return cache_in(output)
