"""Horizontal bars of a run with a single retention ratio."""

from __future__ import annotations

from typing import Any

from foveate.benchmarks.plot_style import (
    GREY,
    figure,
    frontier,
    plain,
    points,
    references,
    shown_name,
    style,
    whiskers,
)
from foveate.benchmarks.results import Results
from foveate.benchmarks.tables import ratio, title_of


def pareto(results: Results) -> Any:
    """Normalised accuracy of every method with its interval, and its theoretical speed-up."""
    rows = sorted(
        ((p[0], name) for name in results.names if (p := points(results, name))),
        key=lambda row: row[0].accuracy,
    )
    made, ((axes,),) = figure(7.4, 1.3 + 0.23 * len(rows))
    coloured = frontier(results)
    references(axes, vertical=True)
    for number, (point, name) in enumerate(rows):
        axes.barh(
            number,
            point.accuracy,
            0.66,
            color=_colour(results, name, coloured),
            xerr=whiskers([point]),
            error_kw={"elinewidth": 0.9, "capsize": 2},
        )
        end = max(point.accuracy, (point.interval or (0, point.accuracy))[1], 0)
        axes.annotate(
            f"{point.speedup:.2f}x",
            (end, number),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    axes.set_yticks(range(len(rows)), [shown_name(results, name) for _, name in rows])
    axes.set_ylim(-0.7, max(len(rows), 1) - 0.3)
    axes.set_xlabel(
        "normalised accuracy with 95 % CI (0 = no-image baseline, 1 = full model); right of each "
        "bar:\ntheoretical speed-up of prefill, token selection included"
    )
    axes.set_title(_title(results), loc="left", fontsize=9)
    plain(axes, "x")
    return made


def tasks(results: Results) -> Any:
    """Accuracy of every method, one panel of bars per task, methods in one order."""
    keep = results.keeps[0]
    ran = {name for (_, name, at) in results.cells if at == keep}
    names = sorted(ran, key=lambda name: (results.curve(name).get(keep, -9.0), name))
    count = max(1, len(results.tasks))
    made, grid = figure(1.6 + 2 * count, 1.1 + 0.2 * len(names), 1, count, sharey=True)
    coloured = frontier(results)
    for axes, task in zip(grid[0], results.tasks, strict=False):
        low, high = (100 * value for value in results.span(task))
        references(axes, low, high, vertical=True)
        for number, name in enumerate(names):
            cell = results.cells.get((task, name, keep))
            if cell is None:
                continue
            value = 100 * cell.accuracy
            least, most = (100 * x for x in cell.accuracy_interval)
            axes.barh(
                number,
                value,
                0.66,
                color=_colour(results, name, coloured),
                xerr=[[max(value - least, 0)], [max(most - value, 0)]],
                error_kw={"elinewidth": 0.7},
            )
        axes.set_title(title_of(task), loc="left", fontsize=8.5)
        axes.set_xlabel("accuracy, %")
        plain(axes, "x")
    grid[0, 0].set_ylim(-0.7, max(len(names), 1) - 0.3)
    grid[0, 0].set_yticks(range(len(names)), [shown_name(results, name) for name in names])
    made.suptitle(_title(results), x=0.01, ha="left", fontsize=9)
    return made


def _title(results: Results) -> str:
    kept = ", ".join(results.kept_tasks())
    model, keep = results.configuration["model"], ratio(results.keeps[0])
    return (
        f"{model} at a retention ratio of {keep}, mean over {kept}.\n"
        "Coloured: Pareto frontier. Dark grey: controls and baselines. Light grey: other methods."
    )


def _colour(results: Results, name: str, coloured: list[str]) -> str:
    if results.role(name) == "method" and name not in coloured:
        return GREY
    return style(results, name, coloured)["color"] if name in coloured else "#8a8a90"
