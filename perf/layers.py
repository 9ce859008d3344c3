"""What methods inside the language model are worth: one prefill and a few new tokens each."""

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
from perf.limits import Limits
from perf.shapes import LLAVA_7B, QWEN2_05B, Shape
from perf.timing import Peak, seconds
from perf.watch import watched

# Pictures of 576 tokens, and how much of the rounds a size of prompt gets on a CPU; where it is 0
# the call that is weighed is the one that is timed.
PICTURES = {1: 1.0, 8: 0.0, 16: 0.0}
# The tower is not what is measured.
SHAPE, LARGE = (replace(shape, tower_layers=2) for shape in (QWEN2_05B, LLAVA_7B))
NEW_TOKENS = 7


def untrained() -> dict[str, Method]:
    """All registered methods by slug; of trained ones the parts are random."""
    made = {}
    for slug, cls in registered().items():
        random = {"weights": "random"} if "weights" in {f.name for f in fields(cls)} else {}
        made[slug] = create(slug, **random)
    return made


def methods() -> dict[str, Method]:
    """Those that act between decoder layers."""
    return {slug: method for slug, method in untrained().items() if "layers" in method.stages}


def call(model: Any, inputs: dict[str, Any], method: Method, weigh: bool) -> dict[str, Any]:
    """Figures of one prefill with new tokens behind it; what choosing needs, only with `weigh`."""
    figures = {"choosing": 0.0, "choosing_bytes": 0.0}
    if isinstance(method, TrainedMethod):
        # Parts are made when they are first asked for; whoever has them does not wait.
        text = model.config.get_text_config()
        method.module(model.get_input_embeddings().weight, layers=text.num_hidden_layers)
    peak = Peak()

    def note(decide: Callable[[], Any]) -> Any:
        found: list[Any] = []

        def once() -> None:
            figures["choosing"] += seconds(lambda: found.append(decide()))

        if weigh:
            figures["choosing_bytes"] = max(figures["choosing_bytes"], peak.within(once))
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
        # New tokens of the bare model.
        attachment.detach()
    new, cache = inputs["input_ids"][:, :1], out.past_key_values
    steps = [
        seconds(lambda: model(input_ids=new, past_key_values=cache)) for _ in range(NEW_TOKENS)
    ]
    attachment.detach()
    # Parts of one method are not to be weighed with the next one.
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
    """Speed-up, its share of the promise, and what it takes, with up to `most` pictures.

    The result so far, after each size. only: slugs of the methods; None is all.
    """
    model = shape.build(dtype, device)
    measured = {k: v for k, v in methods().items() if only is None or k in only}
    names = {slug: repr(method) for slug, method in measured.items()}
    sizes = []
    for pictures, share in ((k, v) for k, v in PICTURES.items() if k <= most):
        inputs = shape.inputs(model, pictures)
        chosen = {"bare": Composed(), **measured}
        again = rounds if device == "cuda" else round(rounds * share)
        steps = tqdm(total=len(chosen) * (1 + again), desc=f"{pictures} pictures", disable=None)
        taken = {}
        for name, method in chosen.items():
            taken[name] = call(model, inputs, method, weigh=True)
            steps.update()
        series: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
        for _ in range(again):
            for name, method in chosen.items():
                series[name].append(call(model, inputs, method, weigh=False))
                steps.update()
        steps.close()
        for name, runs in series.items():
            for key in ("prefill", "per_token", "choosing") if runs else ():
                taken[name][key] = median(run[key] for run in runs)
        rows = {n for one in taken.values() for n in one["rows"]}
        limits = Limits(model, rows, again) if again else None
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
    """All figures anew, or with `only` those of some methods among the ones that a file has."""
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


def _row(mine: dict[str, Any], bare: dict[str, Any], limits: Limits | None) -> dict[str, Any]:
    promise, reached = bare["flops"] / mine["flops"], bare["prefill"] / mine["prefill"]
    most = None if limits is None else limits.seconds(bare["rows"]) / limits.seconds(mine["rows"])
    return {
        "promised_speedup": promise,
        "prefill_speedup": reached,
        "share_of_promise": reached / promise,
        "share_of_bare_layers": None if most is None else reached / most,
        "choosing_share_of_bare_prefill": mine["choosing"] / bare["prefill"],
        "choosing_extra_bytes": mine["choosing_bytes"],
        "decode_over_bare": mine["per_token"] / bare["per_token"],
        "peak_memory_over_bare": mine["peak"] / bare["peak"],
        "kv_bytes": mine["kv_bytes"],
        "kv_bytes_over_bare": mine["kv_bytes"] / bare["kv_bytes"],
        "seconds": {key: mine[key] for key in ("prefill", "choosing", "per_token")},
        "bare_seconds": {key: bare[key] for key in ("prefill", "per_token")},
    }


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        f"Methods inside the language model, {result['shape']}, {result['text_tokens']} text tokens"
        " and pictures of 576. Choosing is what runs at boundaries, as a share of the bare prefill,"
        " and the memory that it takes. Trained methods run with untrained parts. Of bare layers:"
        " the speed-up as a share of what bare layers gain on as many rows, the limit of the"
        " machine; given where there were several rounds, and not where a rule changes layers."
        " Targets: share of promise at least 0.85; choosing at most 5 %; time per new token and"
        " peak memory at most 1.00 of bare. Where methods were measured anew, it was beside the"
        " bare model again.",
        "",
    ]
    for size in result["sizes"]:
        bare = size["bare"]
        lines += [
            f"## {size['visual_tokens']:,} visual tokens",
            "",
            f"Bare: {bare['prefill']:.3g} s, {1000 * bare['per_token']:.1f} ms per new token, peak "
            f"{bare['peak'] / 1e9:.2f} GB, cache {bare['kv_bytes'] / 1e6:.1f} MB. Rounds: "
            f"{size['rounds']}.",
            "",
            "| method | promised | prefill faster by | share | of bare layers | choosing "
            "| memory of it | time per new token | peak memory | cache |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for slug, row in size["methods"].items():
            limit = row["share_of_bare_layers"]
            lines.append(
                f"| `{result['names'][slug]}` | {row['promised_speedup']:.2f}× "
                f"| {row['prefill_speedup']:.2f}× | {row['share_of_promise']:.2f} "
                f"| {'–' if limit is None else f'{limit:.2f}'} "
                f"| {100 * row['choosing_share_of_bare_prefill']:.2f} % "
                f"| {row['choosing_extra_bytes'] / 1e6:.0f} MB | {row['decode_over_bare']:.2f} "
                f"| {row['peak_memory_over_bare']:.2f} | {row['kv_bytes'] / 1e6:.1f} MB "
                f"({row['kv_bytes_over_bare']:.2f}) |"
            )
        lines.append("")
    counts = [size["visual_tokens"] for size in result["sizes"]]
    lines += [
        "## Growth",
        "",
        "Seconds of prefill, choosing included:",
        "",
        f"| | {' | '.join(f'{n:,}' for n in counts)} |",
        "|---" * (len(counts) + 1) + "|",
    ]
    rows = {"bare": [size["bare"]["prefill"] for size in result["sizes"]]}
    for slug in result["names"]:
        rows[slug] = [size["methods"][slug]["seconds"]["prefill"] for size in result["sizes"]]
    lines += [f"| {k} | {' | '.join(f'{s:.3g}' for s in v)} |" for k, v in rows.items()]
    return "\n".join(lines) + "\n"
