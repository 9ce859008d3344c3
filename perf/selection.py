"""What choosing costs: `reduce` of methods at the tokens stage, `merge` of those in the tower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2Config

import foveate
from foveate.families.base import raster
from foveate.families.tiles import stitched
from foveate.method import Method, create, registered
from foveate.parts import TokensPart
from foveate.signals import (
    ClassState,
    Need,
    ProjectorInput,
    Signals,
    TextEmbeddings,
    VisionAttention,
    VisionKeys,
    VisionStates,
)
from foveate.tokens import Layout, VisualTokens
from perf.shapes import QWEN2_05B
from perf.timing import Peak, extra_bytes, interleaved, seconds
from perf.watch import watched

# One picture, and an overview with four crops and the newlines behind their rows.
TIMED = {576: raster(1, 24, 24), 2880: stitched(24, (2, 2), (0, 0, 48, 48))}
# One picture that is a pool of its own, and an overview with twenty crops.
WEIGHED = (raster(1, 96, 120), stitched(24, (4, 5), (0, 0, 96, 120)))
TOWER, HEADS, MODEL, WORDS = 1024, 16, 896, 32
# A whole CLIP-L tower in front of one decoder layer, and as many pictures of 576 patches.
SEEING = replace(
    QWEN2_05B,
    tower_layers=24,
    text=Qwen2Config(**{**QWEN2_05B.text.to_dict(), "num_hidden_layers": 1, "layer_types": None}),
)
PICTURES = (1, 5, 20)
REPEATS = 2


def methods() -> dict[str, Method]:
    """All registered methods that choose tokens in front of the language model, by slug."""
    made = {slug: create(slug) for slug in registered()}
    return {slug: method for slug, method in made.items() if choosers(method)}


def choosers(method: Method) -> list[TokensPart]:
    """The parts of a method that reduce tokens in front of the language model."""
    return [part for part in method.parts() if isinstance(part, TokensPart)]


def item(layout: Layout, seed: int = 0) -> VisualTokens:
    """One item with random features."""
    g = torch.Generator().manual_seed(seed)
    return layout.tokens(torch.randn(1, layout.n, MODEL, generator=g))


def signal(need: Need, tokens: VisualTokens, g: torch.Generator) -> Tensor:
    """Random values in the shape that a tower of 1,024 channels and 16 heads would give."""
    n = tokens.n
    shape: tuple[int, ...] = {
        VisionAttention: (1, HEADS, n),
        VisionKeys: (1, HEADS, n, TOWER // HEADS),
        VisionStates: (1, n, TOWER),
        ProjectorInput: (1, n, TOWER),
        ClassState: (1, len(tokens.grid.views), TOWER),
        TextEmbeddings: (1, WORDS, MODEL),
    }[type(need)]
    if isinstance(need, VisionAttention) and (
        isinstance(need.layer, tuple) or need.rows == "mutual"
    ):
        # Two directions of "mutual"; of a slice of blocks as many as the deepest one reads.
        shape = (1, 2 if need.rows == "mutual" else 7, *shape[1:])
    value = torch.rand(shape, generator=g)
    return value.softmax(-1) if isinstance(need, VisionAttention) else value - 0.5


def choosing(method: Method, layout: Layout) -> Callable[[], object]:
    """A call that reduces one item as the engine would; all that it reads is made beforehand."""
    g = torch.Generator().manual_seed(1)
    tokens, (part, *others) = item(layout), choosers(method)
    if others:
        raise NotImplementedError(f"{method!r} chooses twice in front of the language model.")
    project = torch.randn(TOWER, MODEL, generator=g) / TOWER**0.5
    values = {need: signal(need, tokens, g) for need in part.needs}
    signals, keep = Signals(values, lambda x: x @ project), part.count(layout.grid)
    return lambda: part.reduce(tokens, signals, keep)


def mergers() -> dict[str, Method]:
    """All registered methods that merge inside the vision tower, by slug."""
    made = {slug: create(slug) for slug in registered()}
    return {slug: method for slug, method in made.items() if "encoders" in method.stages}


def merging(model: Any, method: Method, pictures: int) -> tuple[float, int]:
    """Seconds of all that a method decides in the tower, and the most memory one decision takes."""
    inputs, peak = SEEING.inputs(model, pictures), Peak()
    taken, most = [0.0], 0

    def note(decide: Callable[[], Any]) -> Any:
        nonlocal most
        found: list[Any] = []

        def once() -> None:
            taken[-1] += seconds(lambda: found.append(decide()))

        most = max(most, peak.within(once))
        return found[0]

    with foveate.attach(model, method), watched(method, note):
        for _ in range(1 + REPEATS):
            model(**inputs, logits_to_keep=1)
            taken.append(0.0)
    return median(taken[1:-1]), most


def bare(n: int) -> Callable[[], object]:
    """The prefill of the bare language model with n visual tokens and some words."""
    torch.manual_seed(0)
    decoder = QWEN2_05B.decoder()
    states = torch.randn(1, n + WORDS, MODEL)
    return lambda: decoder(inputs_embeds=states, use_cache=True)


@torch.inference_mode()
def measure(rounds: int, prefill: Callable[[int], Callable[[], object]] = bare) -> dict[str, Any]:
    """Share of the bare prefill at two sizes, growth between them, extra memory at a large one."""
    small, large = TIMED
    taken: dict[int, dict[str, float]] = {}
    for n, layout in TIMED.items():
        calls = {slug: choosing(method, layout) for slug, method in methods().items()}
        calls["bare"] = prefill(n)
        taken[n] = interleaved(
            {slug: lambda run=run: seconds(run) for slug, run in calls.items()}, rounds
        )
    figures = {
        slug: ([taken[n][slug] for n in TIMED], max(weighed(method)))
        for slug, method in methods().items()
    }
    model = SEEING.build(torch.float32, "cpu")
    for slug, method in mergers().items():
        *times, (_, most) = (merging(model, method, k) for k in PICTURES)
        figures[slug] = [time for time, _ in times], most
    bares = [taken[n]["bare"] for n in TIMED]
    return {
        "tokens": [small, large, max(layout.n for layout in WEIGHED)],
        "rounds": rounds,
        "bare_seconds": dict(zip(TIMED, bares, strict=True)),
        "methods": {
            slug: {
                "method": repr(create(slug)),
                "seconds": dict(zip(TIMED, times, strict=True)),
                "share_of_bare_prefill": {
                    n: time / whole for n, time, whole in zip(TIMED, times, bares, strict=True)
                },
                "growth": times[1] / times[0],
                "extra_bytes": bytes_,
            }
            for slug, (times, bytes_) in sorted(figures.items())
        },
    }


def weighed(method: Method) -> list[int]:
    """Extra memory of choosing among very many tokens, per layout of `WEIGHED`."""
    return [extra_bytes(choosing(method, layout)) for layout in WEIGHED]


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    small, large, huge = result["tokens"]
    whole = result["bare_seconds"]
    lines = [
        "Choosing alone, in front of the language model: `reduce` on one item of random tokens, "
        f"medians of {result['rounds']} interleaved runs, as a share of the bare prefill of "
        f"{QWEN2_05B.name} with as many visual and {WORDS} text tokens "
        f"({whole[small]:.2f} s and {whole[large]:.2f} s). {large:,} tokens are an overview and "
        f"four crops. Memory is what the process needs on top at up to {huge:,} tokens. Targets: "
        "at most 5 % at either size, less than 1 GB. Of methods in the vision tower it is all that "
        "they decide there, with 24 blocks, at 576, 5 x 576 and 20 x 576 patches. What methods "
        "inside the language model need to choose stands in `layers.md`.",
        "",
        f"| method | {small} tokens | share | {large:,} tokens | share | growth | extra memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["methods"].values():
        cells = " | ".join(
            f"{1000 * row['seconds'][n]:.1f} ms | {100 * row['share_of_bare_prefill'][n]:.2f} %"
            for n in (small, large)
        )
        lines.append(
            f"| `{row['method']}` | {cells} | {row['growth']:.1f}× "
            f"| {row['extra_bytes'] / 1e6:.0f} MB |"
        )
    return "\n".join(lines) + "\n"
