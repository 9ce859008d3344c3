"""Traces and reports that are written by hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from foveate.report import LayerSpan, Report, Trace
from foveate.tokens import Layout


def trace_of(layout: Layout, assign: list[int], **more) -> Trace:
    """The trace of an item whose slots are held as `assign` says."""
    held = torch.tensor(assign)
    index = torch.tensor([assign.index(k) for k in range(int(held.max()) + 1)])
    return Trace(layout, index, held, torch.bincount(held[held >= 0]).float(), **more)


def layered(layout: Layout, *spans: tuple[int, int, list[int]]) -> Trace:
    """The trace of an item of which layers `first` to `last` process slots as `assign` says."""
    made = [
        LayerSpan(first, last, max(assign) + 1, torch.tensor(assign))
        for first, last, assign in spans
    ]
    final = made[-1].assign
    index = torch.tensor([spans[-1][2].index(k) for k in range(made[-1].tokens)])
    size = torch.bincount(final[final >= 0], minlength=made[-1].tokens).float()
    return Trace(layout, index, final, size, by_layer=tuple(made))


def report_of(*traces: Trace, layers: int = 4, method: str = "DivPrune(keep=0.25)") -> Report:
    """The report of a call with these items."""
    full = [
        t
        if t.by_layer
        else replace(t, by_layer=(LayerSpan(0, layers - 1, len(t.index), t.assign),))
        for t in traces
    ]
    by_layer = [[s.tokens for s in t.by_layer for _ in range(s.first, s.last + 1)] for t in full]
    return Report(
        method=method,
        tokens_in=[t.layout.n for t in full],
        tokens_out=[len(t.index) for t in full],
        tokens_by_layer=by_layer,
        traces=full,
    )
