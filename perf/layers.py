"""Measured speed-up of methods inside the LLM: one prefill and a few decode steps each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm.auto import tqdm

import foveate
from foveate.method import Composed, Method, create, registered
from foveate.trained import TrainedMethod, release
from perf import targets
from perf.rendering import EFFICIENCY, SHORT_PROMPT, THEORETICAL
from perf.selection_hooks import watched
from perf.shapes import LLAVA_7B, QWEN2_05B, Shape
from perf.short_prompts import ShortPrompts
from perf.timing import Peak, seconds

# Images of 576 tokens per prompt, and the ratio of the rounds that it gets on a CPU. With 0, the
# call that measures memory is also the one that is timed.
PICTURES = {1: 1.0, 8: 0.0, 16: 0.0}
# A short vision encoder: it is not measured here.
SHAPE, LARGE = (replace(shape, tower_layers=2) for shape in (QWEN2_05B, LLAVA_7B))
NEW_TOKENS = 7


def untrained() -> dict[str, Method]:
    """All registered methods by slug; learned modules have random weights."""
    made = {}
    for slug, cls in registered().items():
        random = {"weights": "random"} if "weights" in {f.name for f in fields(cls)} else {}
        made[slug] = create(slug, **random)
    return made


def methods() -> dict[str, Method]:
    """Methods inside the LLM."""
    return {slug: method for slug, method in untrained().items() if "layers" in method.stages}


def call(model: Any, inputs: dict[str, Any], method: Method, memory: bool) -> dict[str, Any]:
    """One prefill and a few decode steps. With `memory`, also the memory of token selection."""
    figures = {"selection": 0.0, "selection_bytes": 0.0}
    if isinstance(method, TrainedMethod):
        # Modules are built at first use, which is not part of a call.
        text = model.config.get_text_config()
        method.module(model.get_input_embeddings().weight, layers=text.num_hidden_layers)
    peak = Peak()

    def note(decide: Callable[[], Any]) -> Any:
        found: list[Any] = []

        def once() -> None:
            figures["selection"] += seconds(lambda: found.append(decide()))

        if memory:
            figures["selection_bytes"] = max(figures["selection_bytes"], peak.within(once))
        else:
            once()
        return found[0]

    attachment = foveate.attach(model, method)
    with watched(method, note):
        out = model(**inputs, logits_to_keep=1, use_cache=True)
    report = attachment.report
    figures |= {"prefill": report.seconds["prefill"], "peak": peak.total()}
    figures |= {"flops": report.flops, "kv_bytes": report.kv_bytes}
    words = inputs["input_ids"].shape[1] - sum(report.tokens_in)
    figures["rows"] = [words + sum(n) for n in zip(*report.tokens_by_layer, strict=True)]
    if not method.parts():
        # Decode steps of the full model run without hooks.
        attachment.detach()
    new, cache = inputs["input_ids"][:, :1], out.past_key_values
    steps = [
        seconds(lambda: model(input_ids=new, past_key_values=cache)) for _ in range(NEW_TOKENS)
    ]
    attachment.detach()
    # The modules of one method must not count as memory of the next.
    release()
    return figures | {"per_token": median(steps)}


@torch.inference_mode()
def measure(
    rounds: int,
    device: str,
    dtype: torch.dtype,
    shape: Shape = SHAPE,
    most: int = 16,
    only: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Theoretical and measured speed-up, and selection overhead; yields after each prompt size.

    Args:
        rounds: interleaved runs per variant.
        device: "cpu" or "cuda".
        dtype: of the weights.
        shape: the model.
        most: largest number of images per prompt.
        only: slugs of the methods; None is all.
    """
    model = shape.build(dtype, device)
    measured = {k: v for k, v in methods().items() if only is None or k in only}
    names = {slug: repr(method) for slug, method in measured.items()}
    sizes = []
    for pictures, share in ((k, v) for k, v in PICTURES.items() if k <= most):
        inputs = shape.inputs(model, pictures)
        chosen = {"bare": Composed(), **measured}
        again = rounds if device == "cuda" else round(rounds * share)
        steps = tqdm(total=len(chosen) * (1 + again), desc=f"{pictures} images", disable=None)
        taken = {}
        for name, method in chosen.items():
            taken[name] = call(model, inputs, method, memory=True)
            steps.update()
        series: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
        for _ in range(again):
            for name, method in chosen.items():
                series[name].append(call(model, inputs, method, memory=False))
                steps.update()
        steps.close()
        for name, runs in series.items():
            for key in ("prefill", "per_token", "selection") if runs else ():
                taken[name][key] = median(run[key] for run in runs)
        rows = {n for one in taken.values() for n in one["rows"]}
        limits = ShortPrompts(model, rows, again) if again else None
        sizes.append(
            {
                "visual_tokens": shape.visual * pictures,
                "rounds": max(1, again),
                "bare": taken["bare"],
                "seconds_of_a_bare_layer": limits.curve if limits else [],
                "methods": {
                    name: _row(taken[name], taken["bare"], limits and limits.of(method))
                    for name, method in measured.items()
                },
            }
        )
        yield {"shape": shape.name, "text_tokens": shape.words, "names": names, "sizes": sizes}


def renewed(
    path: Path,
    only: list[str] | None,
    measure: Callable[[list[str] | None], Iterable[dict[str, Any]]],
) -> Iterator[dict[str, Any]]:
    """Results of all methods; with `only`, those of some methods merged into a stored file."""
    before = json.loads(path.read_text()) if only is not None and path.exists() else None
    for now in measure(only):
        if before is None:
            yield now
            continue
        before["names"] = dict(sorted({**before["names"], **now["names"]}.items()))
        for size in before["sizes"]:
            for other in now["sizes"]:
                if other["visual_tokens"] == size["visual_tokens"]:
                    size["methods"] = dict(sorted({**size["methods"], **other["methods"]}.items()))
        yield before


def _row(mine: dict[str, Any], bare: dict[str, Any], limits: ShortPrompts | None) -> dict[str, Any]:
    theoretical = bare["flops"] / mine["flops"]
    measured = bare["prefill"] / mine["prefill"]
    most = None if limits is None else limits.seconds(bare["rows"]) / limits.seconds(mine["rows"])
    return {
        "theoretical_speedup": theoretical,
        "measured_speedup": measured,
        "speedup_efficiency": measured / theoretical,
        "vs_short_prompt": None if most is None else measured / most,
        "selection_overhead": mine["selection"] / bare["prefill"],
        "selection_extra_bytes": mine["selection_bytes"],
        "time_per_output_token_over_bare": mine["per_token"] / bare["per_token"],
        "peak_memory_over_bare": mine["peak"] / bare["peak"],
        "kv_bytes": mine["kv_bytes"],
        "kv_bytes_over_bare": mine["kv_bytes"] / bare["kv_bytes"],
        "seconds": {key: mine[key] for key in ("prefill", "selection", "per_token")},
        "bare_seconds": {key: bare[key] for key in ("prefill", "per_token")},
    }


FULL = "that of the full model"
TARGETS = (
    targets.at_least("speedup_efficiency", targets.EFFICIENCY, "speed-up efficiency"),
    targets.at_most("selection_overhead", 0.05, "selection overhead", "5 %", 4),
    targets.at_most("time_per_output_token_over_bare", 1.0, "time per output token", FULL),
    targets.at_most("peak_memory_over_bare", 1.0, "peak memory", FULL),
)


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"Methods inside the LLM on {result['shape']}: {result['text_tokens']} text tokens and "
        "images of 576 visual tokens. Learned modules have random weights.",
        "",
        "- **Full model**: the model with an attachment that has no method, which times the "
        "prefill; its decode steps run without an attachment.",
        THEORETICAL,
        "- **Measured prefill speed-up**: prefill time of the full model / with the method.",
        EFFICIENCY,
        SHORT_PROMPT,
        "- **Selection overhead**: time of token selection / prefill time of the full model.",
        "- **Time per output token, peak memory, KV cache**: with the method / full model.",
        "- **Memory of selection**: extra memory of the largest single token selection.",
        "",
        "When some methods are measured again, the full model is measured with them.",
        "",
    ]
    for size in result["sizes"]:
        bare = size["bare"]
        lines += [
            f"## {size['visual_tokens']:,} visual tokens",
            "",
            f"Full model: prefill {bare['prefill']:.3g} s, {1000 * bare['per_token']:.1f} ms per "
            f"output token, peak memory {bare['peak'] / 1e9:.2f} GB, KV cache "
            f"{bare['kv_bytes'] / 1e6:.1f} MB. Rounds: {size['rounds']}.",
            "",
            targets.told(TARGETS, size["methods"].values()),
            "",
            "| method | theoretical speed-up | measured prefill speed-up | speed-up efficiency "
            "| vs. equally short prompt | selection overhead | memory of selection "
            "| time per output token | peak memory | KV cache |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for slug, row in size["methods"].items():
            short, decode = row["vs_short_prompt"], row["time_per_output_token_over_bare"]
            lines.append(
                f"| `{result['names'][slug]}` | {row['theoretical_speedup']:.2f}× "
                f"| {row['measured_speedup']:.2f}× | {row['speedup_efficiency']:.2f} "
                f"| {'–' if short is None else f'{short:.2f}'} "
                f"| {100 * row['selection_overhead']:.2f} % "
                f"| {row['selection_extra_bytes'] / 1e6:.0f} MB | {decode:.2f} "
                f"| {row['peak_memory_over_bare']:.2f} | {row['kv_bytes'] / 1e6:.1f} MB "
                f"({row['kv_bytes_over_bare']:.2f}) |"
            )
        lines.append("")
    counts = [size["visual_tokens"] for size in result["sizes"]]
    lines += [
        "## Prefill time by prompt length",
        "",
        "Seconds, token selection included:",
        "",
        f"| visual tokens | {' | '.join(f'{n:,}' for n in counts)} |",
        "|---" * (len(counts) + 1) + "|",
    ]
    rows = {"full model": [size["bare"]["prefill"] for size in result["sizes"]]}
    for slug in result["names"]:
        rows[slug] = [size["methods"][slug]["seconds"]["prefill"] for size in result["sizes"]]
    lines += [f"| {k} | {' | '.join(f'{s:.3g}' for s in v)} |" for k, v in rows.items()]
    return "\n".join(lines) + "\n"
