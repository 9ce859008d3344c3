"""KV caches with fewer bits or tokens: bytes and time per output token."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch

import foveate
from foveate.method import Composed, Method
from perf.shapes import QWEN2_05B, Shape
from perf.timing import seconds

NEW_TOKENS = 9


def methods() -> dict[str, Method]:
    """The variants. Random weights attend evenly, so the ratio of important tokens is fixed."""
    return {
        "bare": Composed(),
        "bits": foveate.create("zipvl", keep=0.4),
        "bits of all": foveate.create("zipvl", tau=1.0),
        "evicting": foveate.create("zipvl", keep=0.4, evict=True),
    }


@torch.inference_mode()
def measure(
    rounds: int, device: str, dtype: torch.dtype, shape: Shape = QWEN2_05B
) -> dict[str, Any]:
    """Bytes after the prefill, relative to float32 and bfloat16; medians of interleaved runs."""
    model = shape.build(dtype, device)
    inputs = shape.inputs(model)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in methods()}
    for _ in range(rounds + 1):
        for name, method in methods().items():
            runs[name].append(_call(model, inputs, method))
    rows = {}
    for name, method in methods().items():
        # The first round is a warm-up.
        taken = {key: median(run[key] for run in runs[name][1:]) for key in runs[name][0]}
        numbers = taken.pop("kv_bytes_full") / dtype.itemsize
        rows[name] = {
            "method": repr(method) or "none",
            **taken,
            "of_float32": taken["kv_bytes"] / (4 * numbers),
            "of_bfloat16": taken["kv_bytes"] / (2 * numbers),
        }
    return {
        "shape": shape.name,
        "visual_tokens": shape.visual,
        "text_tokens": shape.words,
        "rounds": rounds,
        "rows": rows,
    }


def _call(model: Any, inputs: dict[str, Any], method: Method) -> dict[str, float]:
    with foveate.attach(model, method) as attachment:
        cache = model(**inputs, logits_to_keep=1, use_cache=True).past_key_values
        report = attachment.report
        new = inputs["input_ids"][:, :1]
        steps = [
            seconds(lambda: model(input_ids=new, past_key_values=cache)) for _ in range(NEW_TOKENS)
        ]
    return {
        "kv_bytes": report.kv_bytes,
        "kv_bytes_full": report.kv_bytes_full,
        "prefill": report.seconds["prefill"],
        "per_token": median(steps),
    }


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    bare = result["rows"]["bare"]
    lines = [
        f"KV caches of {result['shape']} after {result['visual_tokens']} visual and "
        f"{result['text_tokens']} text tokens, quantisation ranges and scales included. Every "
        "decode step dequantises the cache. Times are relative to the full model.",
        "",
        "| method | KV cache | / float32 | / bfloat16 | prefill time | time per output token |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"].values():
        lines.append(
            f"| `{row['method']}` | {row['kv_bytes'] / 2**20:.2f} MB | {row['of_float32']:.3f} "
            f"| {row['of_bfloat16']:.3f} | {row['prefill'] / bare['prefill']:.2f} "
            f"| {row['per_token'] / bare['per_token']:.2f} |"
        )
    return "\n".join(lines) + "\n"
