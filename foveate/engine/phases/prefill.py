"""Prefill: tokens are selected, and the prompt is made shorter before the LLM runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foveate.engine.cache.provenance import untag
from foveate.engine.cache.stored_layer import refuse_foreign
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.layer_hooks import surround_layers
from foveate.engine.prompt.attention_structure import refuse_structure
from foveate.engine.prompt.host_copy import Known
from foveate.engine.prompt.locations import locate, vision_signals
from foveate.engine.prompt.prompt import Prompt, cache_in, seen_columns
from foveate.engine.prompt.splice import Splice
from foveate.engine.refusals import refuse_coarse_dtype, refuse_compiled, refuse_missing_pixels
from foveate.engine.setup import Setup
from foveate.engine.state import ModelCall
from foveate.engine.tower.items import Record
from foveate.errors import UnsupportedCall
from foveate.tokens import VisualTokens

Reduced = dict[str, list[VisualTokens]]


def prefill(
    setup: Setup, call: ModelCall, kw: dict[str, Any], outputs: dict[str, Any], known: Known
) -> dict[str, Any]:
    """The arguments of the inner model for the shortened prompt, which `call.prompt` describes.

    Args:
        setup: the attached method.
        call: this call.
        kw: arguments of the whole prompt.
        outputs: encoder outputs by modality; empty for a prompt of text alone that rules act on.
        known: the prompt on the CPU.
    """
    _prepare_cache(setup, cache_in(kw))
    if not outputs:
        refuse_missing_pixels(setup.anatomy, known.ids)
    records = {modality: _record(setup, modality, o) for modality, o in outputs.items()}
    setup.anatomy.family.check(setup.anatomy.config, kw)
    refuse_coarse_dtype()
    clock = next((r.clock for r in records.values()), None)
    clock = clock or setup.reporter.clock(kw["input_ids"].device)
    kw["mm_encoder_outputs"] = None
    counted = kw.get("position_ids") is None
    counted &= not hasattr(setup.anatomy.inner, "compute_3d_position_ids")
    with clock.span("select"):
        splice = Splice(setup.anatomy, kw, outputs, records, known)
        prompt, reduced = _shortened(setup, splice)
    prompt.clock = clock
    if setup.boundaries:
        locate(prompt, splice.rows, prompt.traces)
    if setup.inside_llm:
        decoder = DecoderCall(prompt, True, labels=call.targets.labels)
        decoder.padded_positions = counted and min(prompt.full) < prompt.length
        decoder.vision_signals = vision_signals(
            prompt,
            splice.rows,
            setup.boundaries.vision_needs,
            lambda p, need: records[p.modality].attention(
                p.number, need, reduced[p.modality][p.number]
            ),
        )
        call.decoder = decoder
        surround_layers(setup, decoder, call.stack, dict(setup.boundaries.readers(decoder)))
    if not outputs:
        splice.kw["mm_encoder_outputs"] = None
    call.prompt = prompt
    # Counts only: features and signals must not outlive the call.
    call.encoder_runs = [run for record in records.values() for run in record.tower]
    call.start("prefill", clock)
    return splice.kw


def _prepare_cache(setup: Setup, cache: Any) -> None:
    """Make an empty cache a plain one; raise for a cache that the method can't fill."""
    if cache is not None and seen_columns(cache):
        raise UnsupportedCall(
            "A new image or video after a filled cache can't be reduced; start a fresh call with "
            "the whole conversation."
        )
    if cache is not None:
        untag(cache)
    if setup.caches:
        refuse_foreign(cache)
        refuse_compiled(setup.anatomy)


def _record(setup: Setup, modality: str, output: Any) -> Record:
    """What the encode phase recorded of one modality."""
    record = output.get("foveate") if isinstance(output, Mapping) else None
    if record is None:
        raise UnsupportedCall(
            f"The {modality} features were made or cut outside this model; pass pixel_values "
            "(and do not set prefill_chunk_size)."
        )
    if not setup.encoder.serves(record):
        raise UnsupportedCall(
            f"The {modality} features were encoded under another method, which recorded other "
            "signals of the vision encoder; encode them again."
        )
    return record


def _shortened(setup: Setup, splice: Splice) -> tuple[Prompt, Reduced]:
    """Run the parts before the LLM: the prompt that is left, and the tokens of its items."""
    given = splice.given() if setup.rules else None
    agnostic = setup.method.prompt_agnostic
    reduced = splice.reduce(setup.tokens, agnostic, setup.record_scores)
    changed = any(record.changed for record in splice.records.values())
    if changed or setup.inside_llm:
        refuse_structure(setup.anatomy, splice.kw, splice.mask)
    if changed:
        prompt = splice.shorten(reduced, setup.packed)
    else:
        prompt = splice.whole(positions=bool(setup.boundaries or setup.rules))
    prompt.traces = splice.traces(reduced)
    prompt.scores = [] if setup.record_scores else None
    prompt.given, prompt.rules = given, setup.rules.parts
    return prompt, reduced
