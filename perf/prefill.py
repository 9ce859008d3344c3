"""Whole calls: theoretical and measured speed-up, stage times, peak memory, KV cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import foveate
from foveate.method import Method
from perf.shapes import Shape
from perf.short_prompts import on_rows
from perf.timing import interleaved, peak_bytes, seconds

SELECTING = ("fastervlm", "divprune", "visionzip")
LAYERED = ("fastv", "pyramiddrop")
NEW_TOKENS = 9


def methods() -> dict[str, Method]:
    """The methods that are measured: 10 % of the tokens before the LLM, defaults inside it."""
    chosen = {slug: foveate.create(slug, keep=0.1) for slug in SELECTING}
    return {**chosen, **{slug: foveate.create(slug) for slug in LAYERED}}


def measure(
    shape: Shape, dtype: torch.dtype, device: str, rounds: int, batch: int = 1
) -> dict[str, Any]:
    """All results for one model, with `batch` prompts at once."""
    model = shape.build(dtype, device)
    inputs = shape.inputs(model, batch=batch)
    reports: dict[str, Any] = {}
    attachments: dict[str, foveate.Attachment] = {}

    def bare() -> None:
        model(**inputs, logits_to_keep=1)

    def attached(name: str, method: Method) -> Callable[[], None]:
        def run() -> None:
            with foveate.attach(model, method) as att:
                model(**inputs, logits_to_keep=1)
            attachments[name] = att

        return run

    calls = {"bare": bare, "keep_all": attached("keep_all", foveate.create("divprune", keep=1.0))}
    for name, method in methods().items():
        calls[name] = attached(name, method)

    stages: dict[str, dict[str, list[float]]] = {name: {} for name in calls if name != "bare"}

    def timed(name: str, run: Callable[[], None]) -> Callable[[], float]:
        def once() -> float:
            total = seconds(run)
            if name in attachments:
                # Reading a report is not part of the call.
                reports[name] = attachments[name].report
                for stage, value in reports[name].seconds.items():
                    stages[name].setdefault(stage, []).append(value)
            return total

        return once

    with torch.inference_mode():
        total = interleaved({n: timed(n, r) for n, r in calls.items()}, rounds)
        memory = {name: peak_bytes(run) for name, run in calls.items()}
        decode = _decode(model, inputs, rounds)
        ceiling = _ceiling(model, inputs, reports, rounds)
    taken = {
        name: {stage: sorted(v[1:])[(len(v) - 1) // 2] for stage, v in per.items()}
        for name, per in stages.items()
    }
    whole = taken["keep_all"]
    rows = {}
    for name in methods():
        report, mine = reports[name], taken[name]
        theoretical = report.flops_full / report.flops
        measured = whole["prefill"] / mine["prefill"]
        # Recording signals in the vision encoder is part of the selection overhead.
        selection = mine["select"] + max(0.0, mine["encode"] - whole["encode"]) - whole["select"]
        rows[name] = {
            "method": report.method,
            "tokens": [report.tokens_in[0], report.tokens_out[0]],
            "theoretical_speedup": theoretical,
            "measured_speedup": measured,
            "speedup_efficiency": measured / theoretical,
            "vs_short_prompt": measured / ceiling[name] if name in ceiling else None,
            "selection_overhead": selection / whole["prefill"],
            "peak_memory_over_bare": memory[name] / memory["bare"],
            "time_per_output_token_over_bare": decode[name] / decode["bare"],
            "kv_bytes_over_bare": report.kv_bytes / report.kv_bytes_full,
            "seconds": {**mine, "per_token": decode[name]},
        }
    return {
        "shape": shape.name,
        "visual_tokens": shape.visual,
        "text_tokens": shape.words,
        "batch": batch,
        "attention": model.config.text_config._attn_implementation,
        "rounds": rounds,
        "bare_seconds": {**whole, "per_token": decode["bare"]},
        "keep_all_over_bare": total["keep_all"] / total["bare"],
        "keep_all_peak_memory_over_bare": memory["keep_all"] / memory["bare"],
        "methods": rows,
    }


def _ceiling(model, inputs: dict, reports: dict, rounds: int) -> dict[str, float]:
    """Speed-up of the full decoder on prompts that are already as short as a method makes them.

    This is the hardware's limit for reduction before the LLM.
    """
    decoder = model.get_decoder()

    batch, full = inputs["input_ids"].shape
    short = {name: reports[name].prompt_tokens[0] for name in SELECTING}
    taken = interleaved(
        {str(n): on_rows(decoder, n, batch) for n in {full, *short.values()}}, rounds
    )
    return {name: taken[str(full)] / taken[str(n)] for name, n in short.items()}


def _decode(model, inputs: dict, rounds: int) -> dict[str, float]:
    """Median time per output token after each prefill."""

    def run(method: Method | None) -> Callable[[], float]:
        def once() -> float:
            attachment = None if method is None else foveate.attach(model, method)
            out = model(**inputs, logits_to_keep=1, use_cache=True)
            cache = out.past_key_values
            new = inputs["input_ids"][:, :1]

            def steps() -> None:
                for _ in range(NEW_TOKENS):
                    model(input_ids=new, past_key_values=cache)

            taken = seconds(steps) / NEW_TOKENS
            if attachment is not None:
                attachment.detach()
            return taken

        return once

    variants: dict[str, Method | None] = {"bare": None, **methods()}
    return interleaved({n: run(m) for n, m in variants.items()}, rounds)
