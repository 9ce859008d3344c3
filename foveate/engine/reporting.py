"""From the books of a prompt to the figures of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from math import isqrt

import torch

from foveate.engine.anatomy import Anatomy
from foveate.engine.clock import Clock
from foveate.engine.prompt.prompt import Prompt, Stage
from foveate.flops import DecoderShape, VisionShape, kv_bytes, prefill_flops, vision_flops
from foveate.method import Method, in_road_order
from foveate.parts import CachesPart, DetourPart, LayersPart, Part, RulePart, Widths
from foveate.report import LayerSpan, Report, Trace

Runs = list[tuple[int, list[int]]]
"""Per crop or frame its patches, and the tokens that ran through each block of the tower."""


def build_report(
    anatomy: Anatomy, method: Method, prompt: Prompt, towers: Runs, clock: Clock
) -> Callable[[], Report]:
    """A function that works the report out when it is read; later decode steps are counted too."""
    made: list[Report] = []

    def read() -> Report:
        if not made:
            report = _static(anatomy, method, prompt)
            report.vision_flops = _vision(anatomy, towers)
            report.method_flops = _choosing(anatomy, method, prompt, towers, report)
            made.append(report)
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
    last = prompt.stages[-1]
    items = {id(s): s.item.cpu() for s in (*prompt.stages, *prompt.detours.values())}
    tokens = {id(s): s.token.cpu() for s in (*prompt.stages, *prompt.detours.values())}
    drawn_as = next((p.drawn_as for p in method.parts() if p.drawn_as != "patches"), "patches")
    patch = getattr(anatomy.config.vision_config, "patch_size", 0)
    patch = patch if isinstance(patch, int) else 0
    done: set[int] = set()
    for b, row in enumerate(prompt.traces):
        for number, trace in enumerate(row):
            if id(trace) in done:
                continue
            done.add(id(trace))
            trace = trace.cpu()
            left = {k: tokens[k][b][v[b] == number].sort().values for k, v in items.items()}
            final = replace(
                _within(prompt, last, b, number, trace, left[id(last)]),
                by_layer=_by_layer(prompt, stages, b, number, trace, left),
                drawn_as=drawn_as,
                cell=patch * isqrt(trace.layout.rows.shape[1]),
            )
            report.traces.append(final)
            report.kept.append(final.index.sort().values)
            report.tokens_in.append(trace.layout.n)
            report.tokens_out.append(len(final.index))
            report.tokens_by_layer.append([len(left[id(s)]) for s in stages])
    shape = DecoderShape.from_config(anatomy.config)
    width = next(anatomy.text.parameters()).element_size()
    for b, full in enumerate(prompt.full):
        lengths = [s.lengths[b] for s in stages]
        report.prompt_tokens.append(prompt.stream(0).lengths[b])
        report.flops += prefill_flops(shape, lengths)
        report.flops_full += prefill_flops(shape, full)
        plain = [0 if i in prompt.stored else n for i, n in enumerate(lengths)]
        report.kv_bytes += kv_bytes(shape, plain, width)
        report.kv_bytes_full += kv_bytes(shape, full, width)
    for flops, held in prompt.saved:
        report.flops -= int(flops.sum())
        report.kv_bytes -= 0 if held is None else int(held.sum())
    report.kv_bytes += sum(prompt.stored.values())
    return report


def _by_layer(
    prompt: Prompt,
    stages: list[Stage],
    b: int,
    number: int,
    trace: Trace,
    left: dict[int, torch.Tensor],
) -> tuple[LayerSpan, ...]:
    """Which tokens of an item each layer processes; layers that process the same form one span.

    stages: per layer what runs through it. left: per stage, by its id, the item's tokens in it.
    """
    made: list[LayerSpan] = []
    for _, group in groupby(range(len(stages)), lambda i: id(stages[i])):
        run = list(group)
        own = left[id(stages[run[0]])]
        assign = _within(prompt, prompt.stream(run[0]), b, number, trace, own).assign
        if made and len(own) == made[-1].tokens and torch.equal(assign, made[-1].assign):
            made[-1] = replace(made[-1], last=run[-1])
        else:
            made.append(LayerSpan(run[0], run[-1], len(own), assign))
    return tuple(made)


def _vision(anatomy: Anatomy, runs: Runs) -> int | None:
    """FLOPs of the towers over all crops and frames."""
    shape = VisionShape.from_config(anatomy.config)
    if shape is None or not runs:
        return None
    return sum(vision_flops(shape, tokens, patches=patches) for patches, tokens in runs)


def _choosing(anatomy: Anatomy, method: Method, prompt: Prompt, runs: Runs, report: Report) -> int:
    """FLOPs that the parts spend on choosing, by their own account."""
    vision, text = anatomy.config.vision_config, DecoderShape.from_config(anatomy.config)
    tower = VisionShape.from_config(anatomy.config)
    heads = getattr(vision, "num_attention_heads", None) or getattr(vision, "num_heads", 1)
    widths = Widths(
        tower=0 if tower is None else tower.hidden,
        head=0 if tower is None else tower.hidden // heads,
        blocks=0 if tower is None else tower.layers,
        model=text.hidden,
        keys=text.kv_heads * text.head_dim,
    )
    total = 0
    for part in in_road_order(method.parts()):
        if isinstance(part, LayersPart | DetourPart):
            for before, behind in _steps(part, prompt, len(anatomy.layers)):
                columns = zip(before.lengths, behind.lengths, strict=True)
                total += sum(part.cost(n, left, widths) for n, left in columns if left < n)
        elif isinstance(part, RulePart):
            for i in part.layers(len(anatomy.layers)):
                total += sum(part.cost(n, n, widths) for n in prompt.at(i).lengths)
        elif isinstance(part, CachesPart):
            continue
        elif part.stage == "encoders":
            total += sum(part.cost(patches, tokens[-1], widths) for patches, tokens in runs)
        else:
            pairs = zip(report.tokens_in, report.tokens_by_layer, strict=True)
            total += sum(part.cost(n, left[0], widths) for n, left in pairs if left[0] < n)
    return total


def _steps(part: Part, prompt: Prompt, layers: int) -> Iterator[tuple[Stage, Stage]]:
    """What reached each place where a part acts, and what went on from there."""
    if isinstance(part, LayersPart):
        yield from ((_before(prompt, k), prompt.stream(k)) for k in part.boundaries(layers))
    if isinstance(part, DetourPart):
        yield from ((prompt.stream(i), prompt.at(i)) for i in part.layers(layers))


def _before(prompt: Prompt, k: int) -> Stage:
    """The stage that reaches boundary k."""
    return next(s for s in reversed(prompt.stages) if s.boundary < k or s is prompt.first)


def _held(prompt: Prompt, last: Stage, b: int, number: int, n: int) -> torch.Tensor:
    """Token (n,) that stands for each of an item's tokens after the last boundary of `last`.

    -1 for those that nothing took in; itself for those that merged with none.
    """
    if last.merged_into is None:
        return torch.arange(n)
    first = prompt.first
    item, token, into = (x[b].cpu() for x in (first.item, first.token, last.merged_into))
    own = (item == number).nonzero()[:, 0]
    by = torch.full((n,), -1)
    # From first columns to the item's tokens, on both sides.
    by[token[own]] = token[into[own].clamp(min=0)].masked_fill(into[own] < 0, -1)
    return by


def _within(
    prompt: Prompt, stream: Stage, b: int, number: int, trace: Trace, left: torch.Tensor
) -> Trace:
    """The trace of an item's tokens `left` (K,), in layers that `stream` enters."""
    return _survivors(trace, left, _held(prompt, stream, b, number, len(trace.index)))


def _survivors(trace: Trace, left: torch.Tensor, held: torch.Tensor) -> Trace:
    """The trace with only the tokens `left` (K,) surviving, and what they took in.

    held (N,): the token that stands for each, where it is among `left`.
    """
    if len(left) == len(trace.index):
        return trace
    n = len(trace.index)
    moved = torch.full((n + 1,), -1)
    moved[left] = torch.arange(len(left))
    new = moved[held.masked_fill(held < 0, n)]
    size = torch.zeros(len(left) + 1).scatter_add(
        0, new.masked_fill(new < 0, len(left)), trace.size.float()
    )
    new = torch.cat([new, new.new_full((1,), -1)])
    assign = new[trace.assign.masked_fill(trace.assign < 0, n)]
    return replace(trace, index=trace.index[left], assign=assign, size=size[: len(left)])
