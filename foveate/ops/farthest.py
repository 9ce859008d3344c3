"""Farthest point sampling: points chosen so that each is as far as can be from all before it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from foveate.errors import InvalidParameter

# All pairs of 12,288 points fill 604 MB; of more, the rows of picks are compared one by one.
PAIRS = 12_288**2
# Pairs that are compared at a time where there are several items, or too many points: 64 MB.
BLOCK = 4096**2
STEPS_PER_GRAPH = 32


@torch.no_grad()
def farthest_point(
    x: Tensor,
    k: int,
    *,
    metric: str = "cosine",
    start: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Indices (B, k) of the points of x (B, N, D) that greedy max-min picks, in pick order.

    The first pick is the point whose nearest other is farthest, or `start` (B,); every next one is
    farthest from its nearest pick. Ties go to the lower index, copies of a pick come last.
    metric: "cosine" or "euclidean". mask (B, N) bool: False points come when nothing else is left.
    """
    if metric not in ("cosine", "euclidean"):
        raise InvalidParameter(f"metric={metric!r} is unknown; use 'cosine' or 'euclidean'.")
    x = x.float()
    if metric == "cosine":
        x = x / x.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        half = None
    else:
        # -|x - y|^2 / 2 = x.y - |x|^2 / 2 - |y|^2 / 2: one matrix product for either metric.
        half = x.square().sum(-1) / 2
    n = x.shape[1]
    items = max(1, BLOCK // n**2)
    pick = _over_pairs if n * n <= PAIRS else _over_rows
    parts = [
        pick(x[s], k, *(None if v is None else v[s] for v in (half, start, mask)))
        for s in (slice(i, i + items) for i in range(0, len(x), items))
    ]
    return torch.cat(parts)


def _over_pairs(
    x: Tensor, k: int, half: Tensor | None, start: Tensor | None, mask: Tensor | None
) -> Tensor:
    b, n, _ = x.shape
    alike = gram(x)
    if half is not None:
        alike -= half[:, :, None] + half[:, None, :]
    diagonal = alike.diagonal(dim1=1, dim2=2)
    if start is None:
        diagonal.fill_(float("-inf"))
        others = alike if mask is None else alike.masked_fill(~mask[:, None], float("-inf"))
        start = _lowest(others.amax(2), mask)
    # A point that is infinitely like itself is never picked twice, at no cost per step.
    diagonal.fill_(float("inf"))
    rows, base = alike.view(b * n, n), torch.arange(b, device=x.device) * n
    return _greedy(lambda pick: rows.index_select(0, pick + base), _unpicked(x, mask), start, k)


def _over_rows(
    x: Tensor, k: int, half: Tensor | None, start: Tensor | None, mask: Tensor | None
) -> Tensor:
    b, n, d = x.shape

    def likeness(pick: Tensor) -> Tensor:
        alike = torch.bmm(x, x.gather(1, pick.view(b, 1, 1).expand(b, 1, d)).mT)[..., 0]
        if half is not None:
            alike -= half + half.gather(1, pick[:, None])
        return alike.scatter_(1, pick[:, None], float("inf"))

    if start is None:
        nearest = []
        step = max(1, BLOCK // n)
        for i in range(0, n, step):
            block = x[:, i : i + step]
            alike = block @ x.mT
            if half is not None:
                alike -= half[:, i : i + step, None] + half[:, None, :]
            alike.diagonal(i, dim1=1, dim2=2).fill_(float("-inf"))
            if mask is not None:
                alike.masked_fill_(~mask[:, None], float("-inf"))
            nearest.append(alike.amax(2))
        start = _lowest(torch.cat(nearest, 1), mask)
    return _greedy(likeness, _unpicked(x, mask), start, k)


def _lowest(score: Tensor, mask: Tensor | None) -> Tensor:
    return (score if mask is None else score.masked_fill(~mask, float("inf"))).argmin(1)


def _unpicked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Likeness of every point to its nearest pick before there is one."""
    none = x.new_full(x.shape[:2], float("-inf"))
    return none if mask is None else none.masked_fill_(~mask, torch.finfo(x.dtype).max)


def _greedy(likeness: Callable[[Tensor], Tensor], near: Tensor, first: Tensor, k: int) -> Tensor:
    """Picks (B, k). likeness(pick): every point's likeness (B, N) to the picks (B,).

    near (B, N): running maximum of it over the picks so far.
    """
    if near.is_cuda and k > 2 * STEPS_PER_GRAPH and not torch.cuda.is_current_stream_capturing():
        picks = _greedy_in_graph(likeness, near, first, k)
        if picks is not None:
            return picks
    picks = first.new_empty(k, len(first))
    picks[0] = first
    for i in range(1, k):
        torch.maximum(near, likeness(picks[i - 1]), out=near)
        torch.argmin(near, dim=1, out=picks[i])
    return picks.T


def _greedy_in_graph(
    likeness: Callable[[Tensor], Tensor], near: Tensor, first: Tensor, k: int
) -> Tensor | None:
    """`_greedy` on a GPU in few launches: some steps are captured once and replayed as one graph.

    None where the device refuses the capture. The tests run without a GPU and don't reach this.
    """
    last = first.clone()
    block = first.new_empty(STEPS_PER_GRAPH, len(first))
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(near.device)
    side.wait_stream(torch.cuda.current_stream(near.device))
    with torch.cuda.stream(side):
        # Libraries set themselves up on their first call, which no capture allows.
        torch.argmin(torch.maximum(near, likeness(last)), dim=1)
        try:
            graph.capture_begin(capture_error_mode="thread_local")
            for i in range(STEPS_PER_GRAPH):
                torch.maximum(near, likeness(last), out=near)
                torch.argmin(near, dim=1, out=block[i])
                last.copy_(block[i])
            graph.capture_end()
        except RuntimeError:
            with suppress(RuntimeError):
                graph.capture_end()
            return None
    torch.cuda.current_stream(near.device).wait_stream(side)
    picks = [first[None]]
    for _ in range(0, k - 1, STEPS_PER_GRAPH):
        graph.replay()
        picks.append(block.clone())
    return torch.cat(picks)[:k].T


@torch.no_grad()
def gram(x: Tensor) -> Tensor:
    """All inner products (B, N, N) of x (B, N, D), exactly symmetric, for about half the work."""
    b, n, _ = x.shape
    out = x.new_empty(b, n, n)
    # On a GPU one large product beats several small ones, up to what its copies take.
    step = min(n, 4096) if x.is_cuda else max(64, n // 10)
    for i in range(0, n, step):
        j = min(i + step, n)
        torch.bmm(x[:, i:j], x[:, i:].mT, out=out[:, i:j, i:])
        # Two points that are each other's nearest tie; rounding must not choose between them.
        square = out[:, i:j, i:j]
        square.copy_(square.triu() + square.triu(1).mT)
        if j < n:
            out[:, j:, i:j] = out[:, i:j, j:].mT
    return out
