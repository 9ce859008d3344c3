"""Budgets of methods inside the LLM, for samples that may hold several images or videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from foveate.budget import Keep, resolve
from foveate.contract_checks import check_scores
from foveate.errors import BudgetError, InvalidParameter
from foveate.ops.grouped import top_per_group
from foveate.ops.select import top_mask
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, LayersPart, Merge, Soft

IGNORED = -100


class ScoredLayers(LayersPart):
    """A part that scores visual tokens at each boundary and keeps those with the largest scores.

    Subclasses implement `boundaries` and `scores`. They override `counts` where the budget changes
    with depth. Text stays; ties go to the token that comes first.

    Attributes:
        per_item: rank the tokens of each image or video separately. The default, False, ranks all
            visual tokens of a row together.
    """

    per_item: ClassVar[bool] = False
    keep: Keep

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        """One score per sequence position, (B, N) float; larger is kept. Read for visual tokens."""
        raise NotImplementedError

    def counts(self, k: int, layers: int, state: BoundaryState) -> list[Any]:
        """Visual tokens that stay at boundary k: one int per row, with `per_item` a list per row.

        By default `keep` of those that entered layer 0, or of those of each item.
        """
        if self.per_item:
            return [[resolve(self.keep, n) if n else 0 for n in row] for row in state.known.held]
        return row_counts(self.keep, state)

    def at_boundary(
        self, k: int, layers: int, state: BoundaryState
    ) -> Tensor | Merge | Soft | None:
        counts = self.counts(k, layers, state)
        if not self.drops(counts, state):
            return None
        if not any(self._flat(counts)):
            return ~state.visual
        scores = check_scores(self, self.scores(k, layers, state), state.item)
        state.signals.record(scores)
        return self._best(scores, counts, state) | ~state.visual

    def drops(self, counts: list[Any], state: BoundaryState) -> bool:
        """Whether some row, or item, holds more visual tokens than its count."""
        held = state.known.held if self.per_item else state.known.visual
        pairs = zip(self._flat(counts), self._flat(held), strict=True)
        return any(n < m for n, m in pairs)

    def _flat(self, counts: list[Any]) -> list[int]:
        return [n for row in counts for n in row] if self.per_item else counts

    def _best(self, scores: Tensor, counts: list[Any], state: BoundaryState) -> Tensor:
        """(B, N) bool: the visual tokens with the largest scores."""
        device, most = scores.device, max(state.known.items)
        if not self.per_item or most == 1:
            counts = [sum(row) for row in counts] if self.per_item else counts
            return top_mask(scores, on_device(counts, device), state.visual)
        padded = [row + [0] * (most - len(row)) for row in counts]
        return top_per_group(scores, state.item, on_device(padded, device))


def row_counts(keep: Keep, state: BoundaryState) -> list[int]:
    """Visual tokens that each row keeps of those that entered layer 0; counts are per item."""
    counts, known = [], state.known
    for entered, items in zip(known.entered, known.items, strict=True):
        asked = keep * items if isinstance(keep, int) else keep
        counts.append(resolve(asked, entered) if entered else 0)
    return counts


def rows_budget(keep: Keep, state: BoundaryState) -> Tensor:
    """`row_counts` as a tensor (B,) on the device of the hidden states."""
    return on_device(row_counts(keep, state), state.hidden.device)


def rows_share(keep: Keep, state: BoundaryState) -> list[float]:
    """Retention ratio of each row at most; counts are per item. 1.0 without images."""
    known = state.known
    if isinstance(keep, float):
        return [keep if n else 1.0 for n in known.entered]
    counts = zip(known.entered, known.items, strict=True)
    return [resolve(keep * items, n) / n if n else 1.0 for n, items in counts]


def beyond_depth(
    name: str, value: object, layers: int, most: int | None = None
) -> InvalidParameter:
    """The error for layers that a model of `layers` decoder layers does not have, up to `most`."""
    most = layers - 1 if most is None else most
    return InvalidParameter(
        f"{name}={value} is out of range: the model has {layers} decoder layers "
        f"(0-{layers - 1}); use layers up to {most}."
    )


def item_batches(state: BoundaryState) -> Iterator[tuple[Tensor, Tensor]]:
    """Visual items with equal numbers of columns, together: rows (M,) and columns (M, n)."""
    for rows, columns, _ in wanted_batches(state, [[0] * n for n in state.known.items]):
        yield rows, columns


def wanted_batches(
    state: BoundaryState, wanted: Sequence[Sequence[int]]
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Visual items with equal numbers of columns, and of wanted ones, together.

    wanted: number wanted of each item of each row. Yields rows (M,), columns (M, n) and the number.
    """
    held, width = state.known.held, state.item.shape[1]
    most = max(map(len, held))
    row = torch.arange(len(held), device=state.item.device)[:, None]
    # All columns sorted by row and item, text last.
    key = torch.where(state.visual, row * most + state.item, len(held) * most)
    order = key.flatten().argsort(stable=True)
    alike: dict[tuple[int, int], list[Tensor]] = {}
    start = 0
    for columns, asked in zip(held, wanted, strict=True):
        for n, number in zip(columns, asked, strict=False):
            if n:
                alike.setdefault((n, number), []).append(order[start : start + n])
            start += n
    for (_, number), parts in alike.items():
        own = torch.stack(parts)
        yield own[:, 0] // width, own % width, number


def item_totals(state: BoundaryState, ratios: Sequence[float]) -> list[list[int]]:
    """Tokens to keep of each item, where each row keeps a ratio of what entered of every item.

    What entered is noted at the first boundary that calls this.
    """
    entered = state.notes.setdefault("entered", state.known.held)
    shares = torch.tensor(ratios)
    return [
        (torch.tensor(row) * share).round().clamp(min=1).long().tolist()
        for row, share in zip(entered, shares, strict=True)
    ]


def instruction_rows(state: BoundaryState) -> tuple[Tensor, Tensor]:
    """Columns (B, R) of the text after each row's last visual token, and which of them are real.

    They end with the prompt; in training, before the answers. A row without such text uses its
    last token.
    """
    steps = torch.arange(state.visual.shape[1], device=state.visual.device)
    last = state.last[:, None]
    start = ((steps + 1) * state.visual).amax(1, keepdim=True)
    is_query = (steps >= start) & (steps <= last) & state.valid
    if state.labels is not None:
        is_query &= state.labels == IGNORED
    is_query |= (steps == last) & ~is_query.any(1, keepdim=True)
    most = state.known.asking if state.labels is None else int(is_query.sum(1).max())
    rows = is_query.long().argsort(dim=1, descending=True, stable=True)[:, : max(1, most)]
    real = is_query.gather(1, rows)
    return torch.where(real, rows, last), real


def quarters(layers: int) -> tuple[int, ...]:
    """Layers at a quarter, a half and three quarters of the depth; a shallow decoder has fewer."""
    return tuple(k for k in dict.fromkeys(layers * i // 4 for i in (1, 2, 3)) if k)


@lru_cache(maxsize=64)
def ratios_of_share(
    share: float, stages: Sequence[int], layers: int, powers: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Powers of the lambda for which the mean ratio over all layers is `share`.

    powers: ascending, one per stage; None is 1, 2, 3, ...
    """
    bounds = (*stages, layers)
    powers = tuple(range(1, len(bounds))) if powers is None else powers

    def mean(factor: float) -> float:
        spans = (b - a for a, b in zip(bounds, bounds[1:], strict=False))
        held = (factor**p * span for p, span in zip(powers, spans, strict=True))
        return (bounds[0] + sum(held)) / layers

    if share == 1 or not stages:
        return (1.0,) * len(stages)
    if share <= mean(0):
        raise BudgetError(
            f"A mean retention ratio of {share:.4g} over the layers is out of reach: the layers "
            f"before layer {stages[0]} keep all tokens, which is {mean(0):.4g} already; raise "
            "keep, or prune in earlier layers."
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < share else (low, middle)
    # Rounded, so that a lambda of 0.5 is exactly 0.5 and floors do not change.
    factor = round(high, 9)
    return tuple(round(factor**p, 9) for p in powers)
