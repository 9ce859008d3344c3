"""Curves of a run with several retention ratios."""

from __future__ import annotations

from typing import Any

from foveate.benchmarks.plot_style import (
    figure,
    frontier,
    named,
    plain,
    points,
    references,
    shown_name,
    spread,
    style,
    whiskers,
)
from foveate.benchmarks.results import Results
from foveate.benchmarks.tables import title_of

_TICKS = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def pareto(results: Results) -> Any:
    """Normalised accuracy against theoretical speed-up."""
    made, ((axes,),) = figure(8.4, 4.8)
    coloured = frontier(results)
    ends, fastest = [], 1.5
    for name in results.names:
        curve = points(results, name)
        if not curve:
            continue
        fastest = max(fastest, *(p.speedup for p in curve))
        x, y = [p.speedup for p in curve], [p.accuracy for p in curve]
        how = style(results, name, coloured)
        axes.plot(x, y, **how)
        if name in coloured:
            axes.errorbar(
                x, y, whiskers(curve), ls="none", color=how["color"], elinewidth=0.9, capsize=2,
                zorder=how["zorder"],
            )  # fmt: skip
        if name in named(results, coloured):
            ends.append((x[-1], y[-1], shown_name(results, name), how["color"]))
    references(axes)
    axes.set_xscale("log")
    axes.set_xlim(0.98, fastest * 1.04)
    axes.set_ylim(min(-0.05, axes.get_ylim()[0]), axes.get_ylim()[1])
    ticks = [x for x in _TICKS if x <= fastest * 1.04]
    axes.set_xticks(ticks, [f"{x:g}x" for x in ticks])
    axes.minorticks_off()
    axes.annotate("full model", (1, 1), (3, 3), textcoords="offset points", fontsize=8)
    axes.annotate("no-image baseline", (1, 0), (3, 3), textcoords="offset points", fontsize=8)
    _end_labels(axes, ends, fastest * 1.04)
    axes.set_xlabel("theoretical speed-up of prefill, token selection included (log scale)")
    axes.set_ylabel("normalised accuracy")
    axes.set_title(
        f"{results.configuration['model']}, mean over {', '.join(results.kept_tasks())}. Coloured: "
        "Pareto frontier with 95 % CI. Grey: other methods.",
        loc="left",
        fontsize=9,
    )
    plain(axes)
    return made


def _end_labels(axes: Any, ends: list[tuple[float, float, str, str]], edge: float) -> None:
    """Names in a column right of the axes, each joined with the last point of its curve."""
    low, high = axes.get_ylim()
    places = spread([y for _, y, _, _ in ends], 0.042 * (high - low)) if ends else []
    for (x, y, text, colour), at in zip(ends, places, strict=True):
        axes.annotate(
            text,
            (x, y),
            (edge * 1.06, at),
            textcoords="data",
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "alpha": 0.6, "shrinkB": 3},
        )


def tasks(results: Results) -> Any:
    """Accuracy against retention ratio, one panel per task."""
    count = len(results.tasks)
    columns = min(3, max(1, count))
    rows = max(1, -(-count // columns))
    made, grid = figure(3.4 * columns, 2.7 * rows + 0.4, rows, columns)
    coloured = frontier(results)
    handles: dict[str, Any] = {}
    for axes, task in zip(grid.flat, results.tasks, strict=False):
        references(axes, *(100 * value for value in results.span(task)))
        for name in results.names:
            cells = [
                (keep, 100 * cell.accuracy)
                for keep in results.keeps
                if (cell := results.cells.get((task, name, keep)))
            ]
            if cells:
                x, y = zip(*cells, strict=True)
                (line,) = axes.plot(x, y, **style(results, name, coloured))
                handles.setdefault(name, line)
        axes.set_xscale("log")
        # From all tokens to few, as the speed-up rises in the other plot.
        axes.set_xlim(max(results.keeps, default=1) * 1.1, min(results.keeps, default=0.5) / 1.1)
        axes.set_xticks(results.keeps, [f"{100 * k:.3g}" for k in results.keeps])
        axes.minorticks_off()
        axes.set_title(title_of(task), loc="left", fontsize=9)
        plain(axes)
    for axes in list(grid.flat)[count:]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy, %")
    # Where the last row of panels isn't full, the panels above its gap are lowest.
    for number, axes in enumerate(grid.flat):
        if count - columns <= number < count:
            axes.set_xlabel("retention ratio, % (log scale)")
    shown = [name for name in named(results, coloured) if name in handles]
    if shown:
        made.legend(
            [handles[name] for name in shown],
            [shown_name(results, name) for name in shown],
            loc="outside lower center",
            ncols=min(5, len(shown)),
            frameon=False,
            title="solid line: full model, dotted line: no-image baseline, grey: other methods",
            title_fontsize=8,
        )
    return made
