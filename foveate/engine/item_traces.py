"""Traces: which tokens of each image or video every layer has, for reports and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from math import isqrt

import torch

from foveate.engine.anatomy import Anatomy
from foveate.engine.prompt.prompt import Prompt, Stage
from foveate.engine.scores import NONE, values_at
from foveate.method import Method
from foveate.report import LayerSpan, Scores, Trace


def items_of(prompt: Prompt) -> Iterator[tuple[int, int, Trace]]:
    """Row, index in the row and trace of each item; items that beam search repeats appear once."""
    done: set[int] = set()
    for b, row in enumerate(prompt.traces):
        for number, trace in enumerate(row):
            if id(trace) not in done:
                done.add(id(trace))
                yield b, number, trace


def traces_of(anatomy: Anatomy, method: Method, prompt: Prompt) -> list[Trace]:
    """For each item, the trace of the tokens that are left after the last boundary, on the CPU."""
    stages = [prompt.at(i) for i in range(len(anatomy.layers))]
    last, every = prompt.stages[-1], (*prompt.stages, *prompt.detours.values())
    items = {id(s): s.item.cpu() for s in every}
    tokens = {id(s): s.token.cpu() for s in every}
    drawn_as = next((p.drawn_as for p in method.parts() if p.drawn_as != "patches"), "patches")
    patch = getattr(anatomy.config.vision_config, "patch_size", 0)
    patch = patch if isinstance(patch, int) else 0
    found = []
    for b, number, trace in items_of(prompt):
        trace = trace.cpu()
        left = {k: tokens[k][b][v[b] == number].sort().values for k, v in items.items()}
        final = replace(
            _within(prompt, last, b, number, trace, left[id(last)]),
            scores=_scores(prompt, b, number, trace),
            by_layer=_by_layer(prompt, stages, b, number, trace, left),
            drawn_as=drawn_as,
            cell=patch * isqrt(trace.layout.rows.shape[1]),
        )
        found.append(final)
    return found


def _by_layer(
    prompt: Prompt,
    stages: list[Stage],
    b: int,
    number: int,
    trace: Trace,
    left: dict[int, torch.Tensor],
) -> tuple[LayerSpan, ...]:
    """Which tokens of an item each layer processes; equal consecutive layers form one span.

    Args:
        prompt: The prompt.
        stages: For each layer, the stage that runs through it.
        b: Row of the item.
        number: Index of the item in the row.
        trace: The item's trace before the LLM.
        left: For each stage, by its id, the item's tokens in it.
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


def _scores(prompt: Prompt, b: int, number: int, trace: Trace) -> tuple[Scores, ...]:
    """All scores of an item, first those before the LLM, then those inside it.

    Layers that ranked only tokens of other items are left out.
    """
    found = list(trace.scores)
    for noted in prompt.scores or ():
        columns = noted.columns
        item, token, values = (x[b].cpu() for x in (columns.item, columns.token, noted.values))
        own = item == number
        by_token = torch.full((len(trace.index),), NONE)
        by_token[token[own]] = values[own]
        # Tokens that merged before have the score of the token that they are part of.
        by_token = values_at(by_token, _held(prompt, columns, b, number, len(by_token)))
        slots = values_at(by_token, trace.assign)
        if not bool(slots.isnan().all()):
            found.append(Scores(noted.stage, noted.layer, noted.method, slots))
    return tuple(found)


def _held(prompt: Prompt, last: Stage, b: int, number: int, n: int) -> torch.Tensor:
    """For each token of an item, the token (n,) that contains it after the last boundary of `last`.

    -1 for dropped tokens; the token itself where it did not merge.
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
    """The trace of an item with only its tokens `left` (K,), in the layers of `stream`."""
    return _survivors(trace, left, _held(prompt, stream, b, number, len(trace.index)))


def _survivors(trace: Trace, left: torch.Tensor, held: torch.Tensor) -> Trace:
    """The trace with only the tokens `left` (K,), and what merged into them.

    held (N,) is the token that contains each token.
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
