"""The pictures of a run: retained skill against cost, and every task by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.results import Results
from foveate.benchmarks.tables import label, title_of

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#5b4636")
_MARKERS = "osD^vP*X"
_GREYS = {
    "oracle": ("#222222", (0, ())),
    "random": ("#666666", (0, (5, 2))),
    "random_original": ("#999999", (0, (1, 1.5))),
    "uniform": ("#888888", (0, (3, 1, 1, 1))),
    "grid_pool": ("#aaaaaa", (0, ())),
    "downsample": ("#bbbbbb", (0, (5, 1))),
}


def draw(results: Results, stem: str | Path, kinds: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write STEM-pareto and STEM-tasks, each as SVG and PNG; the files that were written."""
    try:
        import matplotlib
    except ImportError:
        raise BenchError(
            "The plot needs matplotlib: pip install 'foveate[plot]', or pass --no-plot."
        ) from None
    written = []
    # Equal results give equal files: no dates, no random ids.
    with matplotlib.rc_context({"svg.hashsalt": "foveate", "font.size": 9, "svg.fonttype": "path"}):
        for name, figure in (("pareto", _pareto(results)), ("tasks", _tasks(results))):
            for kind in kinds:
                extra = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 150}
                path = Path(f"{stem}-{name}.{kind}")
                try:
                    figure.savefig(path, bbox_inches="tight", facecolor="white", **extra)
                except OSError as error:
                    raise BenchError(
                        f"{str(path)!r} can't be written ({error.strerror})."
                    ) from None
                written.append(path)
    return written


# Names in a line below the curves.
NAMES = 5


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    # Without pyplot no window system is asked for and no global state is left behind.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _pareto(results: Results) -> Any:
    # The curves keep their height however many names stand below them.
    figure, ((axes,),) = _figure(8.2, 4.4 + 0.24 * -(-len(results.names) // NAMES))
    tasks = results.kept_tasks()
    shares = []
    for name in results.names:
        curve = results.curve(name)
        points = [
            (
                np.mean([results.cells[task, name, keep].flops_share for task in tasks]),
                skill,
            )
            for keep, skill in curve.items()
        ]
        if points:
            shares += [x for x, _ in points]
            axes.plot(
                *zip(*points, strict=True), label=label(results, name), **_style(results, name)
            )
    axes.axhline(1, color="#222222", lw=0.8)
    axes.axhline(0, color="#222222", lw=0.8)
    axes.annotate("full", (1, 1), (0, 3), textcoords="offset points", ha="right", fontsize=8)
    axes.annotate("blind", (1, 0), (0, 3), textcoords="offset points", ha="right", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xlim(min([*shares, 0.5]) * 0.93, 1.02)
    ticks = [x for x in (0.0625, 0.125, 0.2, 0.3, 0.4, 0.5, 0.7, 1) if x >= min([*shares, 0.5])]
    axes.set_xticks(ticks, [f"{100 * x:.3g} %" for x in ticks])
    axes.minorticks_off()
    axes.set_xlabel("FLOPs of prefill and token selection, share of full")
    axes.set_ylabel("retained skill R, mean over tasks")
    axes.set_title(f"{results.configuration['model']}: {', '.join(tasks)}", loc="left", fontsize=10)
    axes.grid(color="#e5e5e5", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        _legend(figure, handles, labels, NAMES)
    return figure


def _tasks(results: Results) -> Any:
    tasks = results.tasks
    columns = min(3, max(1, len(tasks)))
    rows = max(1, -(-len(tasks) // columns))
    figure, grid = _figure(3.4 * columns, 2.7 * rows, rows, columns)
    for axes, task in zip(grid.flat, tasks, strict=False):
        blind, full = results.span(task)
        axes.axhline(100 * full, color="#222222", lw=0.8)
        axes.axhline(100 * blind, color="#222222", lw=0.8, ls=":")
        for name in results.names:
            points = [
                (keep, 100 * cell.accuracy)
                for keep in results.keeps
                if (cell := results.cells.get((task, name, keep)))
            ]
            if points:
                axes.plot(
                    *zip(*points, strict=True), label=label(results, name), **_style(results, name)
                )
        axes.set_xscale("log", base=2)
        axes.set_xticks(results.keeps, [f"{100 * k:.4g}" for k in results.keeps])
        axes.minorticks_off()
        axes.set_title(title_of(task), loc="left", fontsize=9)
        axes.grid(color="#e5e5e5", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(grid.flat)[len(tasks) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy, %")
    # Where the last line of panels isn't full, the panels above its gap are lowest.
    for number, axes in enumerate(grid.flat):
        if len(tasks) - columns <= number < len(tasks):
            axes.set_xlabel("visual tokens kept, %")
    handles, labels = {}, []
    for axes in grid.flat:
        for handle, known in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(known, handle)
    labels = [known for name in results.names if (known := label(results, name)) in handles]
    if labels:
        _legend(figure, [handles[known] for known in labels], labels, 6)
    return figure


def _legend(figure: Any, handles: list[Any], labels: list[str], columns: int) -> None:
    where = "outside lower center"
    figure.legend(handles, labels, loc=where, ncols=min(columns, len(labels)), frameon=False)


def _style(results: Results, name: str) -> dict[str, Any]:
    """Colours for methods, greys for controls, the same in every plot of a run."""
    if name in _GREYS:
        colour, dashes = _GREYS[name]
        return {"color": colour, "ls": dashes, "lw": 1.3, "marker": ".", "ms": 4, "zorder": 2}
    methods = [n for n in results.names if n not in _GREYS]
    i = methods.index(name)
    return {
        "color": _COLOURS[i % len(_COLOURS)],
        "marker": _MARKERS[(i + i // len(_COLOURS)) % len(_MARKERS)],
        "lw": 1.7,
        "ms": 4.5,
        "zorder": 3,
    }
