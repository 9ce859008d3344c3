"""Farthest point sampling: each selected point is as far as possible from all before it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from foveate.errors import InvalidParameter

# All pairs of 12,288 points need 604 MB. With more points, each pick is compared to all others.
PAIRS = 12_288**2
# Pairs per block with several items or too many points: 64 MB.
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
    """Indices (B, k) of greedy max-min sampling, in the order of selection.

    The first point is the one whose nearest neighbour is farthest, or `start`. Every next one is
    farthest from its nearest selected point. Ties go to the lower index. Copies of a selected point
    come last.

    Args:
        x: (B, N, D).
        k: Number of points.
        metric: "cosine" or "euclidean".
        start: (B,) int, the first point, or None.
        mask: (B, N) bool. False points are selected only when no others are left.
    """
    if metric not in ("cosine", "euclidean"):
        raise InvalidParameter(f"metric={metric!r} is not valid; use 'cosine' or 'euclidean'.")
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
    # Infinite similarity to itself prevents that a point is picked twice.
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
    """Initial similarity of every point to its nearest pick, before the first pick."""
    none = x.new_full(x.shape[:2], float("-inf"))
    return none if mask is None else none.masked_fill_(~mask, torch.finfo(x.dtype).max)


def _greedy(likeness: Callable[[Tensor], Tensor], near: Tensor, first: Tensor, k: int) -> Tensor:
    """Picks (B, k).

    Args:
        likeness: Function from picks (B,) to the similarity (B, N) of every point to them.
        near: (B, N), running maximum of the similarity over all picks.
        first: (B,) int, the first pick.
        k: Number of picks.
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
    """`_greedy` on a GPU in few launches: a few steps are captured and replayed as a CUDA graph.

    Returns None where the capture fails. The tests run without a GPU and do not reach this.
    """
    last = first.clone()
    block = first.new_empty(STEPS_PER_GRAPH, len(first))
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream(near.device)
    side.wait_stream(torch.cuda.current_stream(near.device))
    with torch.cuda.stream(side):
        # Run once before the capture: libraries initialise on their first call.
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
    """All inner products (B, N, N) of x (B, N, D), exactly symmetric, for about half the FLOPs."""
    b, n, _ = x.shape
    out = x.new_empty(b, n, n)
    # On a GPU one large product is faster than several small ones, as far as memory allows.
    step = min(n, 4096) if x.is_cuda else max(64, n // 10)
    for i in range(0, n, step):
        j = min(i + step, n)
        torch.bmm(x[:, i:j], x[:, i:].mT, out=out[:, i:j, i:])
        # Two mutually nearest points tie. Exact symmetry keeps rounding from deciding.
        square = out[:, i:j, i:j]
        square.copy_(square.triu() + square.triu(1).mT)
        if j < n:
            out[:, j:, i:j] = out[:, i:j, j:].mT
    return out
