"""The README table "when does it pay", from the stored speed measurements in perf/results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "perf/results"
BEGIN, END = "<!-- payoff: make docs -->", "<!-- end of payoff -->"
BEFORE = "before the LLM, keep 10 % (FasterVLM, DivPrune, VisionZip)"
INSIDE = "inside the LLM, defaults (FastV, PyramidDrop)"
GROUPS = {BEFORE: ("fastervlm", "divprune", "visionzip"), INSIDE: ("fastv", "pyramiddrop")}
COLUMNS = (
    "theoretical_speedup",
    "measured_speedup",
    "kv_bytes_over_bare",
    "time_per_output_token_over_bare",
)


@dataclass(frozen=True)
class Setting:
    """A model, device and prompt with its measurements.

    Attributes:
        where: model and device.
        prompt: prompts per batch × visual tokens.
        methods: measured figures by slug.
        keep_all: time of a call with keep=1.0 / full model, None where it was not measured.
    """

    where: str
    prompt: str
    methods: dict[str, dict[str, Any]]
    keep_all: float | None = None


def table() -> str:
    """The table with a sentence above and the sources below, as Markdown."""
    settings = [*_whole_calls("cuda"), *_long_prompt(), *_whole_calls("cpu")]
    one, many = settings[:2]
    lines = [
        "**On an H200, one prompt of 576 visual tokens gains nothing.** It does not fill the GPU, "
        f"so fewer tokens save no time: {_measured(one, BEFORE)} with methods before the LLM, and "
        f"slower, {_measured(one, INSIDE)}, with methods inside the LLM. **16 such prompts in a "
        f"batch gain {_measured(many, BEFORE)}.** Batches, long prompts and CPUs gain. The KV "
        "cache shrinks in all cases.",
        "",
        "| model, device | prompt | method | theoretical prefill speed-up "
        "| measured prefill speed-up | KV cache | time per output token |",
        "|---|---|---|---|---|---|---|",
    ]
    for setting in settings:
        for group, slugs in GROUPS.items():
            rows = [setting.methods[slug] for slug in slugs if slug in setting.methods]
            if rows:
                theory, measured, cache, decode = (_range(r[c] for r in rows) for c in COLUMNS)
                lines.append(
                    f"| {setting.where} | {setting.prompt} | {group} | {theory}× | {measured}× "
                    f"| {cache}× | {decode}× |"
                )
    lines += [
        "",
        "Measured speed-up is relative to an attached method that prunes nothing, which takes "
        f"{_range(s.keep_all for s in settings if s.keep_all)}× the time of the full model. KV "
        "cache and time per output token are relative to the full model. Prompts have 32 text "
        "tokens; weights are random. Sources: [CUDA](perf/results/cuda.md), "
        "[8 images per prompt](perf/results/layers_7b_cuda.md), [CPU](perf/results/cpu.md). "
        "`make perf` measures them again.",
    ]
    return "\n".join(lines)


def insert(text: str) -> str:
    """A page with the table between its markers; a page without markers as it is."""
    if BEGIN not in text:
        return text
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def _whole_calls(name: str) -> list[Setting]:
    """The settings of one file, on a GPU those of the 7B model."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    shapes = [s for s in result["prefill"] if name == "cpu" or "7B" in s["shape"]]
    device = "CPU" if name == "cpu" else result["machine"]["device"].removeprefix("NVIDIA ")
    return [
        Setting(
            f"{_model(shape['shape'])}, {device}",
            f"{shape['batch']} × {shape['visual_tokens']} visual tokens",
            shape["methods"],
            shape["keep_all_over_bare"],
        )
        for shape in shapes
    ]


def _long_prompt() -> list[Setting]:
    """One prompt with eight images, measured for methods inside the LLM."""
    result = json.loads((RESULTS / "layers_7b_cuda.json").read_text())
    size = max(result["sizes"], key=lambda s: s["visual_tokens"])
    device = result["machine"]["device"].removeprefix("NVIDIA ")
    prompt = f"1 × {size['visual_tokens']:,} visual tokens"
    return [Setting(f"{_model(result['shape'])}, {device}", prompt, size["methods"])]


def _model(shape: str) -> str:
    return shape.split(" (")[0].removesuffix(" decoder")


def _measured(setting: Setting, group: str) -> str:
    return _range(setting.methods[slug]["measured_speedup"] for slug in GROUPS[group]) + "×"


def _range(figures: Iterable[float]) -> str:
    """The smallest and the largest of some ratios, one number if they round to the same."""
    ordered = sorted(figures)
    digits = 1 if ordered[-1] >= 3 else 2
    ends = [f"{x:.{digits}f}" for x in (ordered[0], ordered[-1])]
    return " – ".join(dict.fromkeys(ends))
