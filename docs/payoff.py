"""The README table "when does it pay", from the stored speed measurements in perf/results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "perf/results"
BEFORE = "before the LLM, keep 10 % (FasterVLM, DivPrune, VisionZip)"
INSIDE = "inside the LLM, defaults (FastV, PyramidDrop)"
GROUPS = {BEFORE: ("fastervlm", "divprune", "visionzip"), INSIDE: ("fastv", "pyramiddrop")}
TTFT = ("encode", "select", "prefill")


@dataclass(frozen=True)
class Setting:
    """A model, device and prompt with its measurements.

    Attributes:
        where: model and device.
        prompt: prompts per batch × visual tokens.
        methods: measured figures by slug.
        ttft: seconds to the first token of the full model, None where it was not measured.
    """

    where: str
    prompt: str
    methods: dict[str, dict[str, Any]]
    ttft: float | None = None

    def speedup(self, group: str) -> str:
        """Measured speed-up of the prefill."""
        return _range(row["measured_speedup"] for row in self.rows(group)) + "×"

    def ttft_speedup(self, group: str) -> str:
        """Measured speed-up of the time to the first token."""
        if self.ttft is None:
            return "–"
        taken = [sum(row["seconds"][stage] for stage in TTFT) for row in self.rows(group)]
        return _range(self.ttft / seconds for seconds in taken) + "×"

    def rows(self, group: str) -> list[dict[str, Any]]:
        """Figures of the methods of a group."""
        return [self.methods[slug] for slug in GROUPS[group] if slug in self.methods]


def table() -> str:
    """The table with a sentence above and the sources below, as Markdown."""
    settings = [*_whole_calls("cuda"), *_long_prompt(), *_whole_calls("cpu")]
    one, many = (s for s in settings if "7B" in s.where and s.ttft)
    lines = [
        "**One prompt of 576 visual tokens gains nothing on an H200.** At this length kernel "
        "launches limit the speed, not the number of tokens, and a method adds launches: the time "
        f"to the first token (TTFT) gets worse, {one.ttft_speedup(BEFORE)}. **16 such prompts in a "
        f"batch gain {many.speedup(BEFORE)} in prefill and {many.ttft_speedup(BEFORE)} in TTFT**, "
        "which includes the vision encoder and token selection. A 0.5B model on an H200 gains "
        "nothing even then. A CPU gains with a single prompt. The KV cache shrinks in all cases.",
        "",
        "| model, device | prompts | method | theoretical prefill speed-up "
        "| measured prefill speed-up | TTFT speed-up | KV cache | time per output token |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for setting in settings:
        for group in GROUPS:
            rows = setting.rows(group)
            if rows:
                theory = _range(row["theoretical_speedup"] for row in rows)
                cache = _range(row["kv_bytes_over_bare"] for row in rows)
                decode = _range(row["time_per_output_token_over_bare"] for row in rows)
                lines.append(
                    f"| {setting.where} | {setting.prompt} | {group} | {theory}× "
                    f"| {setting.speedup(group)} | {setting.ttft_speedup(group)} | {cache}× "
                    f"| {decode}× |"
                )
    lines += [
        "",
        "Prefill speed-up is relative to the prefill of an attached method with keep=1.0. TTFT, KV "
        "cache and time per output token are relative to the model without foveate. Weights are "
        "random, which does not change the speed; prompts have 32 text tokens. Sources: "
        "[GPU](perf/results/cuda.md), [8 images per prompt](perf/results/layers_7b_cuda.md), "
        "[CPU](perf/results/cpu.md). `make perf` measures them again.",
    ]
    return "\n".join(lines)


def _whole_calls(name: str) -> list[Setting]:
    """The settings of one file, those of the largest model first."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    shapes = sorted(result["prefill"], key=lambda shape: "7B" not in shape["shape"])
    device = "CPU" if name == "cpu" else result["machine"]["device"].removeprefix("NVIDIA ")
    return [
        Setting(
            f"{_model(shape['shape'])}, {device}",
            f"{shape['batch']} × {shape['visual_tokens']} visual tokens",
            shape["methods"],
            # Stages are measured with a method attached that keeps all tokens.
            sum(shape["bare_seconds"][s] for s in TTFT) / shape["keep_all_over_bare"],
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


def _range(figures: Iterable[float]) -> str:
    """The smallest and the largest of some ratios, one number if they round to the same."""
    ordered = sorted(figures)
    digits = 1 if ordered[-1] >= 3 else 2
    ends = [f"{x:.{digits}f}" for x in (ordered[0], ordered[-1])]
    return " – ".join(dict.fromkeys(ends))
