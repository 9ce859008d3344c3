"""Layouts with tokens that stand for no patch: newlines and class tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from foveate.tokens import Layout


@lru_cache(maxsize=128)
def newline_behind(layout: Layout, width: int | None = None) -> Layout:
    """The layout with a newline after each `width` tokens, or after the last token."""
    width = width or layout.n
    return _fields(layout, lambda x, gap: torch.cat([_lines(x, width), gap(x, width)], 1))


def newlines(n: int) -> Layout:
    """`n` newlines without any patch."""
    return Layout(
        position=torch.full((n, 3), -1),
        view=torch.full((n,), -1),
        special=torch.ones(n, dtype=torch.bool),
        rows=torch.full((n, 1), -1),
    )


@lru_cache(maxsize=128)
def class_before(layout: Layout, width: int) -> Layout:
    """The layout with a class token before each view of `width` tokens."""
    return _fields(layout, lambda x, gap: torch.cat([gap(x, width), _lines(x, width)], 1))


def joined(first: Layout, second: Layout) -> Layout:
    """The tokens of two layouts, one after the other. The first has one encoder row per token."""
    gap = second.rows.shape[1] - 1
    weights = second.weights
    if weights is not None:
        weights = torch.cat([pad(torch.ones(first.n, 1), (0, gap)), weights])
    return Layout(
        position=torch.cat([first.position, second.position]),
        view=torch.cat([first.view, second.view]),
        special=torch.cat([first.special, second.special]),
        rows=torch.cat([pad(first.rows, (0, gap), value=-1), second.rows]),
        weights=weights,
    )


def _lines(x: Tensor, width: int) -> Tensor:
    return x.reshape(-1, width, *x.shape[1:])


def _fields(layout: Layout, insert: Callable[[Tensor, Callable], Tensor]) -> Layout:
    def filled(x: Tensor, value: float) -> Tensor:
        def gap(x: Tensor, width: int) -> Tensor:
            return x.new_full((len(x) // width, 1, *x.shape[1:]), value)

        return insert(x, gap).flatten(0, 1)

    return Layout(
        position=filled(layout.position, -1),
        view=filled(layout.view, -1),
        special=filled(layout.special, True),
        rows=filled(layout.rows, -1),
        weights=None if layout.weights is None else filled(layout.weights, 0),
    )
