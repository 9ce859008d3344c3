"""What the plots of a run share: points, the Pareto frontier, colours, axes and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from foveate.benchmarks.metrics import Interval
from foveate.benchmarks.results import Results
from foveate.benchmarks.tables import label

INK = "#222222"
GREY = "#c4c4c8"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f3c8d", "#5b4636")
_MARKERS = "osD^vP*X"

REFERENCES = {"random": (0, (5, 2)), "downsample": (0, (1, 1.5)), "oracle": (0, (3, 1, 1, 1))}
"""Controls that stand in every plot, with their dashes."""


@dataclass(frozen=True)
class Point:
    """One method at one retention ratio, mean over the scored tasks.

    Attributes:
        keep: the retention ratio.
        speedup: theoretical speed-up of the prefill, token selection included.
        accuracy: normalised accuracy.
        interval: its 95 % interval.
    """

    keep: float
    speedup: float
    accuracy: float
    interval: Interval


def points(results: Results, name: str) -> list[Point]:
    """The points of a method, largest retention ratio first."""
    tasks = results.kept_tasks()
    made = []
    for keep, accuracy in results.curve(name).items():
        share = np.mean([results.cells[task, name, keep].flops_share for task in tasks])
        made.append(Point(keep, 1 / share, accuracy, results.curve_interval(name, keep)))
    return made


def frontier(results: Results) -> list[str]:
    """Methods on the Pareto frontier: at some ratio no other one is faster and as accurate.

    Controls count as competitors, except for the oracle, which knows the answer.
    """
    best, names = -np.inf, []
    found = [(p, name) for name in results.names if name != "oracle" for p in points(results, name)]
    for point, name in sorted(found, key=lambda pair: (-pair[0].speedup, -pair[0].accuracy)):
        if point.accuracy > best:
            best = point.accuracy
            if results.role(name) == "method" and name not in names:
                names.append(name)
    return [name for name in results.names if name in names]


def style(results: Results, name: str, coloured: list[str]) -> dict[str, Any]:
    """How a curve is drawn: frontier methods in colour, references dashed, all others grey."""
    if name in coloured:
        i = coloured.index(name)
        return {
            "color": _COLOURS[i % len(_COLOURS)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "lw": 1.8,
            "ms": 4.5,
            "zorder": 4,
        }
    if name in REFERENCES:
        return {
            "color": INK,
            "ls": REFERENCES[name],
            "lw": 1.2,
            "marker": ".",
            "ms": 4,
            "zorder": 3,
        }
    return {"color": GREY, "lw": 0.9, "marker": ".", "ms": 3, "zorder": 2}


def named(results: Results, coloured: list[str]) -> list[str]:
    """What is labelled: the frontier and the references of the run."""
    return [n for n in results.names if n in coloured] + [
        n for n in REFERENCES if n in results.names
    ]


def shown_name(results: Results, name: str) -> str:
    """A name in a plot."""
    return "oracle (knows the evidence)" if name == "oracle" else label(results, name)


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **more: Any) -> Any:
    """A figure of inches and its axes (rows, columns)."""
    # Without pyplot no window system is asked for and no global state is left behind.
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False, **more)


def plain(axes: Any, axis: str = "both") -> None:
    """A light grid, no box."""
    axes.grid(color="#e8e8e8", lw=0.6, axis=axis)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def references(axes: Any, low: float = 0.0, high: float = 1.0, vertical: bool = False) -> None:
    """Lines at the no-image baseline and the full model."""
    line = axes.axvline if vertical else axes.axhline
    line(high, color=INK, lw=0.9, zorder=1)
    line(low, color=INK, lw=0.9, ls=":", zorder=1)


def whiskers(at: list[Point]) -> np.ndarray:
    """Lengths (2, points) of error bars around accuracies, never negative."""
    rows = [p.interval or (p.accuracy, p.accuracy) for p in at]
    return np.array(
        [
            [max(p.accuracy - low, 0) for p, (low, _) in zip(at, rows, strict=True)],
            [max(high - p.accuracy, 0) for p, (_, high) in zip(at, rows, strict=True)],
        ]
    )


def spread(values: list[float], gap: float) -> list[float]:
    """Positions near `values`, at least `gap` apart, in the same order of size."""
    order = np.argsort(values, kind="stable")
    at = np.array(values, float)[order]
    # Neighbours that are too close form a group around their common centre.
    groups = [[value] for value in at]
    changed = True
    while changed:
        changed, merged = False, [groups[0]] if groups else []
        for group in groups[1:]:
            last = merged[-1]
            reach = np.mean(last) + gap * (len(last) - 1) / 2
            start = np.mean(group) - gap * (len(group) - 1) / 2
            if start - reach < gap - 1e-9:
                merged[-1], changed = last + group, True
            else:
                merged.append(group)
        groups = merged
    placed = np.concatenate(
        [np.mean(g) + gap * (np.arange(len(g)) - (len(g) - 1) / 2) for g in groups]
    )
    made = np.empty(len(values))
    made[order] = placed
    return made.tolist()
