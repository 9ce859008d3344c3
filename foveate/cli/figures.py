"""A report as a short table for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def figures(report: Any) -> Table:
    """Tokens, FLOPs and cache of one call, with and without reduction."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for name in ("full", "reduced", "share"):
        table.add_column(name, justify="right")
    items = [*zip(report.tokens_in, report.tokens_out, strict=True)]
    for number, (full, kept) in enumerate(items, 1):
        name = "visual tokens" if len(items) == 1 else f"visual tokens, picture {number}"
        table.add_row(name, str(full), str(kept), share(kept, full))
        layers = report.tokens_by_layer[number - 1]
        if len(set(layers)) > 1:
            # Methods inside the language model: what is left at the end says little of the cost.
            mean = sum(layers) / len(layers)
            table.add_row("  mean over layers", str(full), f"{mean:.1f}", share(mean, full))
    table.add_row("LLM prefill", *_pair(report.flops_full, report.flops, "FLOPs"))
    table.add_row("KV cache", *_pair(report.kv_bytes_full, report.kv_bytes, "B"))
    return table


def stage_times(seconds: dict[str, float]) -> str:
    """Milliseconds per stage, in the order in which they passed."""
    return "   ".join(f"{k.replace('_', ' ')} {1000 * v:.1f} ms" for k, v in seconds.items())


def share(part: float, whole: float) -> str:
    """`part` of `whole` in percent, empty where there is no whole."""
    return f"{part / whole:.0%}" if whole else ""


def scaled(value: float, unit: str) -> str:
    """A number with a decimal prefix: 12.3 MFLOPs."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 1000:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} P{unit}"


def _pair(full: float, reduced: float, unit: str) -> tuple[str, str, str]:
    if not full:
        return "unknown", "", ""
    return scaled(full, unit), scaled(reduced, unit), share(reduced, full)
