"""The page about whole calls: speed-ups, stage times and the time to the first token."""

from __future__ import annotations

from typing import Any

import foveate
from perf import targets
from perf.rendering import EFFICIENCY, SHORT_PROMPT, THEORETICAL

STAGES = ("encode", "select", "prefill")
ATTACHED = "attached, keep=1.0"
TERMS = (
    f"- **{ATTACHED.capitalize()}**: the model with an attached method that prunes nothing, "
    "`DivPrune(keep=1.0)`. Prefill speed-up and selection overhead are relative to this call. Each "
    "section says how much slower it is than the full model without an attachment.",
    THEORETICAL,
    "- **Measured prefill speed-up**: prefill time with keep=1.0 / with the method, both attached.",
    EFFICIENCY,
    SHORT_PROMPT + " Values above 1 are possible: the short prompts are measured on the decoder "
    "alone, without the overhead of attaching, which the times with keep=1.0 and with the method "
    "contain.",
    "- **Selection overhead**: (added time in the vision encoder + added time of token selection) "
    "/ prefill time of the call with keep=1.0. Added: compared with that call. A negative "
    "difference is timing noise and is shown as 0 %.",
    "- **TTFT**: time to the first token: vision encoder + token selection + prefill.",
    "- **TTFT speed-up**: TTFT of the full model without an attachment / with the method. The "
    "first is derived, because stages are only timed with an attachment: TTFT with keep=1.0 / "
    "(time of the whole call with keep=1.0 / without an attachment).",
    "- **Time per output token, peak memory, KV cache**: with the method / full model without an "
    "attachment.",
)


def page(result: dict[str, Any]) -> str:
    """The results of `python -m perf --only prefill` as Markdown."""
    # Measurements on a GPU are in bfloat16, on a CPU in float32.
    on_gpu = result["machine"]["dtype"] == "torch.bfloat16"
    lines = [*TERMS, ""]
    for shape in result["prefill"]:
        lines += [*_section(shape, result["decode"], on_gpu), ""]
    lines += [
        "## DivPrune alone",
        "",
        "Compared with greedy selection that re-reads all selected rows at every step:",
        "",
        "| tokens | width | kept | naive | foveate | speed-up | same tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["selection"]:
        lines.append(
            f"| {row['n']} | {row['d']} | {row['k']} | {row['naive_ms']:.1f} ms "
            f"| {row['ours_ms']:.1f} ms | {row['speedup']:.1f}× "
            f"| {'yes' if row['same_selection'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _section(shape: dict[str, Any], decode: dict[str, Any], on_gpu: bool) -> list[str]:
    several = f", {shape['batch']} prompts at once" if shape["batch"] > 1 else ""
    slower = shape["keep_all_over_bare"]
    lines = [
        f"## {shape['shape']}, {shape['visual_tokens']} visual + "
        f"{shape['text_tokens']} text tokens{several}",
        "",
        f"Overhead of attaching: a call with keep=1.0 takes {slower:.3f} of the time of the full "
        f"model without an attachment and {shape['keep_all_peak_memory_over_bare']:.2f} of its "
        "peak memory.",
        "",
        _targets(shape, on_gpu),
        "",
        "| method | visual tokens | theoretical speed-up | measured prefill speed-up "
        "| speed-up efficiency | vs. equally short prompt | selection overhead "
        "| TTFT speed-up | peak memory | KV cache | time per output token |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for slug, row in shape["methods"].items():
        short = row["vs_short_prompt"]
        lines.append(
            f"| `{row['method']}` | {_tokens(slug, row)} "
            f"| {row['theoretical_speedup']:.2f}× | {row['measured_speedup']:.2f}× "
            f"| {row['speedup_efficiency']:.2f} "
            f"| {'–' if short is None else f'{short:.2f}'} "
            f"| {100 * max(0.0, row['selection_overhead']):.2f} % "
            f"| {bare_ttft(shape) / ttft(row['seconds']):.2f}× "
            f"| {row['peak_memory_over_bare']:.2f} | {row['kv_bytes_over_bare']:.2f} "
            f"| {row['time_per_output_token_over_bare']:.2f} |"
        )
    return [
        *lines,
        "",
        f"Milliseconds per stage. Decoding a JPEG of {decode['size']} before the call takes "
        f"{decode['seconds'] * 1000:.1f} ms.",
        "",
        *_stages(shape),
    ]


def ttft(seconds: dict[str, float]) -> float:
    """Seconds to the first token: vision encoder, token selection and prefill."""
    return sum(seconds[stage] for stage in STAGES)


def bare_ttft(shape: dict[str, Any]) -> float:
    """Seconds to the first token without an attachment, derived from the call with keep=1.0."""
    return ttft(shape["bare_seconds"]) / shape["keep_all_over_bare"]


def _tokens(slug: str, row: dict[str, Any]) -> str:
    before, after = row["tokens"]
    inside = "layers" in foveate.create(slug).stages
    return f"{before} → {after}" + (" (after the last pruning layer)" if inside else "")


def _targets(shape: dict[str, Any], on_gpu: bool) -> str:
    most = 0.05 if on_gpu else 0.01
    wanted = [
        targets.at_least("speedup_efficiency", targets.EFFICIENCY, "speed-up efficiency"),
        targets.at_most("selection_overhead", most, "selection overhead", f"{100 * most:g} %", 4),
        targets.at_most("peak_memory_over_bare", 1.0, "peak memory", "that of the full model"),
    ]
    attaching = targets.outcome(shape["keep_all_over_bare"] <= 1.02)
    return targets.told(
        wanted,
        shape["methods"].values(),
        f"a call with keep=1.0 at most 1.02 of the full model's time: {attaching}",
    )


def _stages(shape: dict[str, Any]) -> list[str]:
    whole = shape["bare_seconds"]
    lines = [
        "| method | vision encoder | token selection | prefill | TTFT | per output token |",
        "|---|---|---|---|---|---|",
        f"| full model, no attachment | – | – | – | {1000 * bare_ttft(shape):.1f} (derived) "
        f"| {1000 * whole['per_token']:.1f} |",
        f"| {ATTACHED} | {_ms(whole)} | – |",
    ]
    for slug, row in shape["methods"].items():
        taken = row["seconds"]
        lines.append(f"| {slug} | {_ms(taken)} | {1000 * taken['per_token']:.1f} |")
    return lines


def _ms(seconds: dict[str, float]) -> str:
    """Cells of the stages and of their sum in milliseconds."""
    return " | ".join(
        f"{1000 * taken:.1f}" for taken in (*(seconds[s] for s in STAGES), ttft(seconds))
    )
