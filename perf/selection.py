"""What choosing costs: in front of the language model on made-up items, else in whole calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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
from perf import deciding, seeing
from perf.shapes import QWEN2_05B
from perf.timing import extra_bytes, interleaved, seconds

# One picture, and an overview with four crops and the newlines behind their rows.
TIMED = {576: raster(1, 24, 24), 2880: stitched(24, (2, 2), (0, 0, 48, 48))}
# One picture that is a pool of its own, and an overview with twenty crops.
WEIGHED = (raster(1, 96, 120), stitched(24, (4, 5), (0, 0, 96, 120)))
TOWER, HEADS, MODEL, WORDS = 1024, 16, 896, 32


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


def bare(n: int) -> Callable[[], object]:
    """The prefill of the bare language model with n visual tokens and some words."""
    torch.manual_seed(0)
    decoder = QWEN2_05B.decoder()
    states = torch.randn(1, n + WORDS, MODEL)
    return lambda: decoder(inputs_embeds=states, use_cache=True)


@torch.inference_mode()
def measure(
    rounds: int,
    prefill: Callable[[int], Callable[[], object]] = bare,
    deciding: Callable[[], dict[str, tuple[list[float], int]]] = deciding.measure,
) -> dict[str, Any]:
    """Share of the bare prefill at two sizes, growth between them, extra memory at a large one.

    Of methods in front of the language model also with the signals that they read.
    """
    small, large = TIMED
    taken: dict[int, dict[str, float]] = {}
    for n, layout in TIMED.items():
        calls = {slug: choosing(method, layout) for slug, method in methods().items()}
        calls["bare"] = prefill(n)
        taken[n] = interleaved(
            {slug: lambda run=run: seconds(run) for slug, run in calls.items()}, rounds
        )
    bares = [taken[n]["bare"] for n in TIMED]
    before = {
        slug: ([taken[n][slug] for n in TIMED], max(weighed(method)))
        for slug, method in methods().items()
    }
    signals = seeing.measure(methods())
    rows = {slug: _row(slug, *figures, bares) for slug, figures in before.items()}
    for slug, row in rows.items():
        sums = [own + more for own, more in zip(before[slug][0], signals[slug], strict=True)]
        row["seconds_with_signals"] = dict(zip(TIMED, sums, strict=True))
    return {
        "tokens": [small, large, max(layout.n for layout in WEIGHED)],
        "rounds": rounds,
        "bare_seconds": dict(zip(TIMED, bares, strict=True)),
        "methods": rows,
        "inside": {slug: _row(slug, *figures, bares) for slug, figures in deciding().items()},
    }


def _row(slug: str, times: list[float], extra_bytes: int, bares: list[float]) -> dict[str, Any]:
    shares = [time / whole for time, whole in zip(times, bares, strict=True)]
    return {
        "method": repr(create(slug)),
        "seconds": dict(zip(TIMED, times, strict=True)),
        "share_of_bare_prefill": dict(zip(TIMED, shares, strict=True)),
        "growth": times[1] / times[0] if times[0] else 1.0,
        "extra_bytes": extra_bytes,
    }


def weighed(method: Method) -> list[int]:
    """Extra memory of choosing among very many tokens, per layout of `WEIGHED`."""
    return [extra_bytes(choosing(method, layout)) for layout in WEIGHED]


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    small, large, huge = result["tokens"]
    whole = result["bare_seconds"]
    lines = [
        f"Shares are of the bare prefill of {QWEN2_05B.name} with as many visual and {WORDS} text "
        f"tokens ({whole[small]:.2f} s and {whole[large]:.2f} s); {large:,} tokens are five "
        "pictures. Targets: at most 5 % at either size, less than 1 GB of memory.",
        "",
        "## In front of the language model",
        "",
        "`reduce` alone on one item of random tokens, medians of "
        f"{result['rounds']} interleaved runs. {large:,} tokens are an overview and four crops. "
        f"Memory is what the process needs on top at up to {huge:,} tokens. With signals: what the "
        "method reads of a CLIP-L tower, of one and of five pictures, and its pooling come to it.",
        "",
        *_table(result["methods"], small, large),
        "",
        "## Inside the tower and the language model",
        "",
        "All that a method decides in the second of two calls: merges in 24 blocks of a CLIP-L "
        "tower, or choices at boundaries of 12 decoder layers, with MLPs cut short, which decide "
        "nothing. Memory is the most that one decision needs on top, at 20 pictures of 576. "
        "Trained methods run with untrained parts.",
        "",
        *_table(result["inside"], small, large),
    ]
    return "\n".join(lines) + "\n"


def _table(rows: dict[str, dict[str, Any]], small: int, large: int) -> list[str]:
    told = any("seconds_with_signals" in row for row in rows.values())
    more = f" with signals, {small} | {large:,} |" if told else ""
    lines = [
        f"| method | {small} tokens | share | {large:,} tokens | share | growth | extra memory |"
        + more,
        "|---" * (9 if told else 7) + "|",
    ]
    for row in rows.values():
        whole = row.get("seconds_with_signals", {})
        cells = " | ".join(
            f"{1000 * row['seconds'][n]:.1f} ms | {100 * row['share_of_bare_prefill'][n]:.2f} %"
            for n in (small, large)
        )
        lines.append(
            f"| `{row['method']}` | {cells} | {row['growth']:.1f}× "
            f"| {row['extra_bytes'] / 1e6:.0f} MB |"
            + "".join(f" {1000 * whole[n]:.1f} ms |" for n in whole)
        )
    return lines
