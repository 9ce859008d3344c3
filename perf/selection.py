"""Selection overhead: before the LLM on random features, elsewhere in whole calls."""

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
from perf import selection_in_model, signal_recording, targets
from perf.shapes import QWEN2_05B
from perf.timing import extra_bytes, interleaved, seconds

# One image, and an AnyRes image: an overview and four crops with newlines after their rows.
TIMED = {576: raster(1, 24, 24), 2880: stitched(24, (2, 2), (0, 0, 48, 48))}
# One large image, and an overview with twenty crops.
MEMORY = (raster(1, 96, 120), stitched(24, (4, 5), (0, 0, 96, 120)))
TOWER, HEADS, MODEL, WORDS = 1024, 16, 896, 32


def methods() -> dict[str, Method]:
    """All registered methods before the LLM, by slug."""
    made = {slug: create(slug) for slug in registered()}
    return {slug: method for slug, method in made.items() if token_parts(method)}


def token_parts(method: Method) -> list[TokensPart]:
    """The parts of a method that reduce tokens before the LLM."""
    return [part for part in method.parts() if isinstance(part, TokensPart)]


def item(layout: Layout, seed: int = 0) -> VisualTokens:
    """One item with random features."""
    g = torch.Generator().manual_seed(seed)
    return layout.tokens(torch.randn(1, layout.n, MODEL, generator=g))


def signal(need: Need, tokens: VisualTokens, g: torch.Generator) -> Tensor:
    """Random values with the shape of a signal from CLIP-L (1,024 channels, 16 heads)."""
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
        # "mutual" has two directions; a slice of blocks has as many as the deepest one reads.
        shape = (1, 2 if need.rows == "mutual" else 7, *shape[1:])
    value = torch.rand(shape, generator=g)
    return value.softmax(-1) if isinstance(need, VisionAttention) else value - 0.5


def reduction(method: Method, layout: Layout) -> Callable[[], object]:
    """A call that reduces one item as the engine does; its inputs are made in advance."""
    g = torch.Generator().manual_seed(1)
    tokens, (part, *others) = item(layout), token_parts(method)
    if others:
        raise NotImplementedError(f"{method!r} has two parts before the LLM.")
    project = torch.randn(TOWER, MODEL, generator=g) / TOWER**0.5
    values = {need: signal(need, tokens, g) for need in part.needs}
    signals, keep = Signals(values, lambda x: x @ project), part.count(layout.grid)
    return lambda: part.reduce(tokens, signals, keep)


def bare(n: int) -> Callable[[], object]:
    """The prefill of the full LLM with n visual tokens and some text."""
    torch.manual_seed(0)
    decoder = QWEN2_05B.decoder()
    states = torch.randn(1, n + WORDS, MODEL)
    return lambda: decoder(inputs_embeds=states, use_cache=True)


@torch.inference_mode()
def measure(
    rounds: int,
    prefill: Callable[[int], Callable[[], object]] = bare,
    inside: Callable[[], dict[str, tuple[list[float], int]]] = selection_in_model.measure,
) -> dict[str, Any]:
    """Selection overhead at two sizes, growth between them, extra memory at a large one.

    For methods before the LLM also with the recording of their signals.

    Args:
        rounds: interleaved runs per variant.
        prefill: gives the prefill of the full LLM with n visual tokens.
        inside: measures methods inside the vision encoder and the LLM.
    """
    small, large = TIMED
    taken: dict[int, dict[str, float]] = {}
    for n, layout in TIMED.items():
        calls = {slug: reduction(method, layout) for slug, method in methods().items()}
        calls["bare"] = prefill(n)
        taken[n] = interleaved(
            {slug: lambda run=run: seconds(run) for slug, run in calls.items()}, rounds
        )
    bares = [taken[n]["bare"] for n in TIMED]
    before = {
        slug: ([taken[n][slug] for n in TIMED], max(memory(method)))
        for slug, method in methods().items()
    }
    signals = signal_recording.measure(methods())
    rows = {slug: _row(slug, *figures, bares) for slug, figures in before.items()}
    for slug, row in rows.items():
        sums = [own + more for own, more in zip(before[slug][0], signals[slug], strict=True)]
        row["seconds_with_signals"] = dict(zip(TIMED, sums, strict=True))
    return {
        "tokens": [small, large, max(layout.n for layout in MEMORY)],
        "rounds": rounds,
        "bare_seconds": dict(zip(TIMED, bares, strict=True)),
        "methods": rows,
        "inside": {slug: _row(slug, *figures, bares) for slug, figures in inside().items()},
    }


def _row(slug: str, times: list[float], extra_bytes: int, bares: list[float]) -> dict[str, Any]:
    shares = [time / whole for time, whole in zip(times, bares, strict=True)]
    return {
        "method": repr(create(slug)),
        "seconds": dict(zip(TIMED, times, strict=True)),
        "selection_overhead": dict(zip(TIMED, shares, strict=True)),
        "growth": times[1] / times[0] if times[0] else 1.0,
        "extra_bytes": extra_bytes,
    }


def memory(method: Method) -> list[int]:
    """Extra memory of selection among many tokens, per layout of `MEMORY`."""
    return [extra_bytes(reduction(method, layout)) for layout in MEMORY]


TARGETS: tuple[targets.Target, ...] = (
    (
        "selection overhead at most 5 % at either size",
        lambda row: max(row["selection_overhead"].values()) <= 0.05,
    ),
    ("extra memory less than 1 GB", lambda row: row["extra_bytes"] < 1e9),
)


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    small, large, huge = result["tokens"]
    whole = _by_size(result["bare_seconds"])
    lines = [
        f"Selection overhead: time of token selection / prefill time of the full {QWEN2_05B.name} "
        f"with as many visual tokens and {WORDS} text tokens ({whole[small]:.2f} s and "
        f"{whole[large]:.2f} s). {large:,} tokens are five images.",
        "",
        targets.told(TARGETS, [*result["methods"].values(), *result["inside"].values()]),
        "",
        "## Before the LLM",
        "",
        f"Token selection alone on one item with random features. Medians of {result['rounds']} "
        f"interleaved runs. {large:,} tokens are an overview and four crops. Extra memory is the "
        f"largest at up to {huge:,} tokens. The last columns add the time to record and pool the "
        "signals that the method reads in a CLIP-L vision encoder, for one and five images.",
        "",
        *_table(result["methods"], small, large),
        "",
        "## Inside the vision encoder and inside the LLM",
        "",
        "All token selections of a whole call: merging in 24 blocks of a CLIP-L, or selection "
        "after some of 12 decoder layers. MLPs are narrow, which does not change the selection. "
        "Extra memory is that of the largest single selection, with 20 images of 576 tokens. "
        "Learned modules have random weights.",
        "",
        *_table(result["inside"], small, large),
    ]
    return "\n".join(lines) + "\n"


def _by_size(figures: dict[Any, float]) -> dict[int, float]:
    """Figures by number of tokens, which JSON stores as text."""
    return {int(n): figure for n, figure in figures.items()}


def _table(rows: dict[str, dict[str, Any]], small: int, large: int) -> list[str]:
    signals = any("seconds_with_signals" in row for row in rows.values())
    more = f" with signals, {small} | with signals, {large:,} |" if signals else ""
    lines = [
        f"| method | {small} tokens | overhead | {large:,} tokens | overhead | growth "
        "| extra memory |" + more,
        "|---" * (9 if signals else 7) + "|",
    ]
    for row in rows.values():
        seconds, overhead = _by_size(row["seconds"]), _by_size(row["selection_overhead"])
        whole = _by_size(row.get("seconds_with_signals", {}))
        cells = " | ".join(
            f"{1000 * seconds[n]:.1f} ms | {100 * overhead[n]:.2f} %" for n in (small, large)
        )
        lines.append(
            f"| `{row['method']}` | {cells} | {row['growth']:.1f}× "
            f"| {row['extra_bytes'] / 1e6:.0f} MB |"
            + "".join(f" {1000 * whole[n]:.1f} ms |" for n in whole)
        )
    return lines
