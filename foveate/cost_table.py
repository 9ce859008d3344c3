"""The table that a report and the totals of many reports share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from foveate.figure_table import figure, html_table, percent, text_table

_NO_CALL = "no call yet"


class CostTable:
    """What shows itself as one line, as a table of text and as a table of HTML.

    Subclasses give `method`, `__bool__`, `_summary`, `_rows` and `_notes`.
    """

    method: str

    def __repr__(self) -> str:
        what = f"{self.method}: {self._summary()}" if self else _NO_CALL
        return f"<{type(self).__name__} {what}>"

    def __str__(self) -> str:
        if not self:
            return _NO_CALL
        return "\n".join([self.method, text_table(self._header(), self._rows()), *self._notes()])

    def _repr_html_(self) -> str:
        if not self:
            return f"<div>{_NO_CALL}</div>"
        return html_table(self.method, self._header(), self._rows(), self._notes())

    def _header(self) -> tuple[str, ...]:
        return ("", "full model", "with method" if self.method else "without method", "ratio")

    def _summary(self) -> str:
        raise NotImplementedError

    def _rows(self) -> list[tuple[str, ...]]:
        raise NotImplementedError

    def _notes(self) -> list[str]:
        raise NotImplementedError


def ratio(part: float, whole: float) -> float:
    """part / whole; 1.0 where there is no whole."""
    return part / whole if whole else 1.0


def ttft(seconds: dict[str, float]) -> float:
    """Seconds of the stages before the first output token."""
    return sum(seconds.get(stage, 0.0) for stage in ("encode", "select", "prefill"))


def summary(full: int, left: int, speedup: float) -> str:
    """Tokens and speed-up on one line."""
    return f"{full} -> {left} visual tokens, theoretical speed-up {speedup:.2f}x"


def token_row(name: str, full: int, left: float) -> tuple[str, ...]:
    """A row of visual tokens with the retention ratio."""
    shown = f"{left}" if isinstance(left, int) else f"{left:.1f}"
    return name, f"{full}", shown, percent(ratio(left, full))


def cost_rows(counted: Any) -> list[tuple[str, ...]]:
    """Rows of FLOPs and bytes, each in one unit, of a report or of totals."""
    if not counted.flops_full:
        return []
    total = counted.flops + counted.method_flops
    rows = (
        ("LLM prefill (GFLOPs)", counted.flops_full, total, 1e9),
        ("KV cache (MB)", counted.kv_bytes_full, counted.kv_bytes, 1e6),
    )
    return [
        (name, figure(full / unit), figure(now / unit), percent(ratio(now, full)))
        for name, full, now, unit in rows
    ]


def stage_times(seconds: dict[str, float]) -> list[str]:
    """A line with the time of each stage that was measured."""
    stages = {name: value for name, value in seconds.items() if name != "per_token"}
    if not stages:
        return []
    times = ", ".join(f"{name} {figure(1000 * value)}" for name, value in stages.items())
    return [f"time (ms): {times}"]


def token_times(seconds: dict[str, float]) -> list[str]:
    """A line with TTFT and time per output token, where they were measured."""
    shown = []
    if ttft(seconds):
        shown.append(f"TTFT: {figure(1000 * ttft(seconds))} ms")
    if "per_token" in seconds:
        shown.append(f"time per output token: {figure(1000 * seconds['per_token'])} ms")
    return [", ".join(shown)] if shown else []


def ranges(by_layer: Sequence[int]) -> str:
    """Tokens of each layer as ranges of layers: "0-1: 576, 2-31: 144"."""
    parts, first = [], 0
    for tokens, group in groupby(by_layer):
        last = first + len(list(group)) - 1
        layers = f"{first}" if first == last else f"{first}-{last}"
        parts.append(f"{layers}: {tokens}")
        first = last + 1
    return ", ".join(parts)
