"""Token selection of foveate compared with the algorithm of the official code.

The official algorithms are rewritten here from their papers. `python -m perf --only peers`: both
select from the same random tokens, in interleaved runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from foveate.families.base import raster
from foveate.families.tiles import stitched
from foveate.method import create
from foveate.methods.layers.dart import unlike
from foveate.methods.tokens.aim import halve
from foveate.ops.farthest import farthest_point
from foveate.ops.matching import bipartite_soft_matching, merge
from foveate.signals import Signals
from foveate.tokens import Layout
from perf import targets
from perf.divprune import naive_farthest
from perf.timing import extra_bytes, interleaved, seconds

SIZES = {576: raster(1, 24, 24), 2880: raster(1, 48, 60), 6272: raster(1, 64, 98)}
TILED = {576: (12, (1, 3)), 2928: (24, (2, 2)), 6352: (28, (1, 7))}
HUGE = 36_864
WIDTH, TOWER, HEADS, SHARE = 4096, 1024, 16, 0.1
# Official algorithms that take minutes at the largest size.
SLOW = {"DivPrune, official", "VisPruner"}


@dataclass(frozen=True)
class Race:
    """foveate and the official algorithm on the same tokens; each returns indices or features."""

    ours: Callable[[], Tensor]
    peer: Callable[[], Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def running_farthest(x: Tensor, k: int) -> Tensor:
    """Greedy max-min selection with a running minimum over rows of all distances."""
    unit = x / x.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    nearest = torch.topk(distance, 2, dim=0, largest=False).values[1]
    chosen = [nearest.argmax()]
    least = distance[chosen[0]].clone()
    for _ in range(k - 1):
        chosen.append(least.argmax())
        least = torch.minimum(least, distance[chosen[-1]])
    return torch.stack(chosen)


def best_attended(attention: Tensor, features: Tensor, k: int) -> Tensor:
    """FasterVLM: the features (K, D) of the k largest of attention (H, N), in reading order."""
    mask = torch.zeros(len(features), dtype=torch.bool)
    mask[attention.mean(0).topk(k).indices] = True
    return features[mask]


def matched(metric: Tensor, x: Tensor, r: int) -> Tensor:
    """ToMe: x (N, D) with the r most similar pairs of even and odd tokens merged into means."""
    metric = metric / metric.norm(dim=-1, keepdim=True)
    scores = metric[::2] @ metric[1::2].T
    best, partner = scores.max(-1)
    order = best.argsort(descending=True)[:, None]
    merged, alone = order[:r], order[r:]
    into = partner[:, None].gather(0, merged)
    even, odd, d = x[::2], x[1::2], x.shape[1]
    kept, gone = (even.gather(0, i.expand(-1, d)) for i in (alone, merged))
    odd = odd.scatter_reduce(0, into.expand(-1, d), gone, "mean")
    return torch.cat([kept, odd])


def halved(x: Tensor, count: int) -> Tensor:
    """AIM: x (N, D) merged by rounds of at most half."""
    while len(x) > count:
        x = matched(x, x, min(len(x) // 2, len(x) - count))
    return x


def removed_in_rounds(score: Tensor, x: Tensor, keep: int) -> Tensor:
    """VisPruner: half by score (N,), half of x (N, C) by rounds that drop similar tokens."""
    important = keep // 2
    order = score.argsort(descending=True)
    x, left = normalize(x, dim=-1), order[important:]
    while (m := min(8, len(left) - (keep - important))) > 0:
        even, odd = left[::2], left[1::2]
        alike = (x[even] @ x[odd].T).amax(1)
        left = torch.cat([even[alike.argsort(descending=True)[m:]], odd])
    return torch.cat([order[:important], left]).sort().values


def unlike_pivots(keys: Tensor, states: Tensor, quota: int, pivots: int = 4) -> Tensor:
    """DART: pivots of largest key norm, and for each the `quota` least similar states (N, D)."""
    norms = keys.abs().sum((0, 2))
    chosen = norms.topk(pivots).indices.tolist()
    kept, rest = set(chosen), [i for i in range(len(states)) if i not in set(chosen)]
    for pivot in chosen:
        index = torch.tensor(rest)
        alike = torch.cosine_similarity(states[pivot][None], states[index], dim=-1)
        least = index[alike.topk(quota, largest=False).indices].tolist()
        kept |= set(least)
        rest = [i for i in rest if i not in set(least)]
    return torch.tensor(sorted(kept))


def unlike_pivots_at_once(keys: Tensor, states: Tensor, quota: int, pivots: int = 4) -> Tensor:
    """DART with one product for all pivots."""
    unit = normalize(states, dim=-1)
    chosen = keys.abs().sum((0, 2)).topk(pivots).indices
    taken = torch.zeros(len(states), dtype=torch.bool)
    taken[chosen] = True
    for alike in unit[chosen] @ unit.T:
        free = alike.masked_fill(taken, float("inf"))
        taken[free.topk(quota, largest=False).indices] = True
    return taken.nonzero()[:, 0]


def shared_by_marks(first: Tensor, last: Tensor, features: Tensor, share: float) -> Tensor:
    """HiRED: tokens of views (V, N, D); the overview's top half of attention (V, H, N) is marked.

    Half of the budget goes to the overview. The crops share the rest by the marks in their region.
    """
    views, n = last.shape[0], last.shape[2]
    low, start = last.sum(1), first.sum(1)[0]
    total = int(views * n * share)
    full = min(total // 2, n)
    marks = torch.zeros(n, dtype=torch.bool)
    marks[start.topk(n // 2).indices] = True
    regions = marks[: n // (views - 1) * (views - 1)].view(views - 1, -1).sum(1)
    mask = torch.zeros(views, n, dtype=torch.bool)
    mask[0, low[0].topk(full).indices] = True
    for i, marked in enumerate(regions):
        some = min(int(marked / regions.sum() * (total - full)), n)
        mask[i + 1, low[i + 1].topk(some).indices] = True
    return features[mask]


def races(n: int, layout: Layout) -> dict[str, Race]:
    """Both sides of every comparison on one image of n tokens."""
    k, x, tower = round(n * SHARE), random(n, WIDTH), random(n, TOWER, seed=1)
    attention = random(HEADS, n, seed=2).softmax(-1)
    keys = random(HEADS, n, TOWER // HEADS, seed=3)
    tokens, quota = layout.tokens(x[None]), k // 4 - 1
    ours = _pivoted(keys, x, quota)
    need = create("fastervlm").needs[0]
    signals = Signals({need: attention[None]})
    fastervlm = create("fastervlm", keep=k)

    def chosen_by_attention() -> Tensor:
        return fastervlm.reduce(tokens, signals, k).features[0]

    def merged() -> Tensor:
        assign, count = bipartite_soft_matching(keys.mean(0)[None], n // 4)
        return merge(tower[None], assign, count)[0]

    return {
        "DivPrune, official": Race(
            lambda: farthest_point(x[None], k)[0], lambda: naive_farthest(x, k)
        ),
        "DivPrune, running minimum": Race(
            lambda: farthest_point(x[None], k)[0], lambda: running_farthest(x, k)
        ),
        "FasterVLM": Race(chosen_by_attention, lambda: best_attended(attention, x, k)),
        "ToMe, one block": Race(merged, lambda: matched(keys.mean(0), tower, n // 4)),
        "AIM, merging": Race(
            lambda: halve(x[None], x[None], n // 4)[1][0], lambda: halved(x, n // 4)
        ),
        "VisPruner": Race(*_pruned(attention.mean(0), tower, k)),
        "DART, official": Race(ours, lambda: unlike_pivots(keys, x, quota)),
        "DART, one product": Race(ours, lambda: unlike_pivots_at_once(keys, x, quota)),
    }


def _pruned(score: Tensor, x: Tensor, k: int) -> tuple[Callable, Callable]:
    method = create("vispruner")
    return (
        lambda: method._pick(score[None], x[None], k)[0].sort().values,
        lambda: removed_in_rounds(score, x, k),
    )


def _pivoted(keys: Tensor, x: Tensor, quota: int) -> Callable[[], Tensor]:
    visual, budget = torch.ones(1, len(x), dtype=torch.bool), torch.tensor([4 + 4 * quota])
    there = torch.ones(1, 4, dtype=torch.bool)

    def ours() -> Tensor:
        norms = keys.abs().sum((0, 2))[None]
        pivots = norms.argsort(dim=1, descending=True, stable=True)[:, :4]
        return unlike(x[None], pivots, there, there, visual, budget)[0].nonzero()[:, 0]

    return ours


def tiled(n: int) -> Race:
    """HiRED on an overview and crops; the official side has no newline tokens."""
    side, tiles = TILED[n]
    rows, columns = tiles
    layout = stitched(side, tiles, (0, 0, rows * side, columns * side))
    views, own = 1 + rows * columns, side * side
    method = create("hired", keep=SHARE * 2)
    first, last = (random(views, HEADS, own, seed=s).softmax(-1) for s in (1, 2))
    features = random(1, layout.n, WIDTH)
    tokens = layout.tokens(features)
    flat = [x.transpose(0, 1).flatten(1).T for x in (first, last)]
    values = {need: layout.pool(x).T[None] for need, x in zip(method.needs, flat, strict=True)}
    keep, peers = method.count(layout.grid), random(views, own, WIDTH)
    return Race(
        lambda: method.reduce(tokens, Signals(values), keep).features[0],
        lambda: shared_by_marks(first, last, peers, SHARE * 2),
    )


@torch.inference_mode()
def measure(rounds: int) -> dict[str, Any]:
    """Median seconds of both sides, and the memory of foveate's DivPrune on a very large image."""
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for n, layout in SIZES.items():
        for name, race in races(n, layout).items():
            if n < max(SIZES) or name not in SLOW:
                rows.setdefault(name, {})[n] = _raced(race, rounds)
    rows["HiRED, tiles"] = {n: _raced(tiled(n), rounds) for n in TILED}
    x = random(1, HUGE, WIDTH)
    # Memory does not depend on how many are selected.
    taken = extra_bytes(lambda: farthest_point(x, 2))
    return {"rounds": rounds, "races": rows, "huge": HUGE, "extra_bytes": taken}


def _raced(race: Race, rounds: int) -> dict[str, Any]:
    ours, peer = race.ours(), race.peer()
    sides = {"ours": lambda: seconds(race.ours), "peer": lambda: seconds(race.peer)}
    taken = interleaved(sides, rounds)
    return {**taken, "alike": _alike(ours, peer)}


def _alike(ours: Tensor, peer: Tensor) -> float | None:
    """Ratio of equal indices, or of equal values; None for different shapes."""
    if ours.dtype == torch.long:
        return len({*ours.tolist()} & {*peer.tolist()}) / len(peer)
    if ours.shape != peer.shape:
        return None
    return float(torch.isclose(ours, peer, atol=1e-5).float().mean())


def page(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "Time of token selection in foveate and with the algorithm of the official code. "
        f"{SHARE:.0%} of the tokens of one image are kept. Features are random, of width "
        f"{WIDTH:,} ({TOWER:,} in the vision encoder). Speed-up: official time / foveate time. "
        "Agreement: ratio of equal indices or equal values.",
        "",
        "- VisPruner at 2,880 random tokens depends on the last bits of cosine similarities. The "
        "official algorithm agrees with itself on 56 % of the tokens between float32 and float64.",
        "- The official HiRED leaves a part of its budget unused.",
        f"- DivPrune on {result['huge']:,} tokens needs {result['extra_bytes'] / 1e6:,.0f} MB of "
        f"extra memory (target: less than 1 GB, {targets.outcome(result['extra_bytes'] < 1e9)}).",
        "",
        "| algorithm | tokens | foveate | official | speed-up | agreement |",
        "|---|---|---|---|---|---|",
    ]
    for name, sizes in result["races"].items():
        for n, row in sizes.items():
            alike = "" if row["alike"] is None else f"{row['alike']:.1%}"
            lines.append(
                f"| {name} | {int(n):,} | {1000 * row['ours']:.2f} ms "
                f"| {1000 * row['peer']:.2f} ms | {row['peer'] / row['ours']:.2f}× | {alike} |"
            )
    return "\n".join(lines) + "\n"
