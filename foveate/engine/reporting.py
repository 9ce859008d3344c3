"""From the books of a prompt to the figures of a report."""

from __future__ import annotations

from collections.abc import Callable

import torch

from foveate.engine.anatomy import Anatomy
from foveate.engine.clock import Clock
from foveate.engine.prompt import Prompt
from foveate.flops import DecoderShape, kv_bytes, prefill_flops
from foveate.method import Method
from foveate.report import Report, Trace


def build_report(
    anatomy: Anatomy, method: Method, prompt: Prompt, clock: Clock
) -> Callable[[], Report]:
    """A function that works the report out when it is read; later decode steps are counted too."""
    made: list[Report] = []

    def read() -> Report:
        if not made:
            made.append(_static(anatomy, method, prompt))
        seconds = clock.seconds()
        if clock.count("decode"):
            seconds["per_token"] = seconds["decode"] / clock.count("decode")
        made[0].seconds = seconds
        return made[0]

    return read


def _static(anatomy: Anatomy, method: Method, prompt: Prompt) -> Report:
    report = Report(method=repr(method))
    layers = len(anatomy.layers)
    stages = [prompt.at(i) for i in range(layers)]
    items = {id(s): s.item.cpu() for s in prompt.stages}
    slots = {id(s): s.slot.cpu() for s in prompt.stages}
    done: set[int] = set()
    for b, row in enumerate(prompt.traces):
        for number, trace in enumerate(row):
            if id(trace) in done:
                continue
            done.add(id(trace))
            last = stages[-1]
            left = slots[id(last)][b][items[id(last)][b] == number]
            final = _survivors(trace, left.sort().values)
            report.traces.append(final)
            report.kept.append(final.index.sort().values)
            report.tokens_in.append(trace.layout.n)
            report.tokens_out.append(len(left))
            held = {k: int((v[b] == number).sum()) for k, v in items.items()}
            report.tokens_by_layer.append([held[id(s)] for s in stages])
    shape = DecoderShape.from_config(anatomy.config)
    width = next(anatomy.text.parameters()).element_size()
    for b, full in enumerate(prompt.full):
        lengths = [s.lengths[b] for s in stages]
        report.prompt_tokens.append(lengths[0])
        report.flops += prefill_flops(shape, lengths)
        report.flops_full += prefill_flops(shape, full)
        report.kv_bytes += kv_bytes(shape, lengths, width)
        report.kv_bytes_full += kv_bytes(shape, full, width)
    return report


def _survivors(trace: Trace, left: torch.Tensor) -> Trace:
    """The trace with only the tokens `left` (K,) surviving."""
    if len(left) == len(trace.index):
        return trace
    moved = torch.full((len(trace.index) + 1,), -1)
    moved[left] = torch.arange(len(left))
    assign = moved[trace.assign.masked_fill(trace.assign < 0, len(trace.index))]
    return Trace(trace.layout, trace.index[left], assign, trace.size[left])
