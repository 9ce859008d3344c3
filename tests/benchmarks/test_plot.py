"""The plots of a run."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from foveate.benchmarks import plot_bars, plot_curves
from foveate.benchmarks.plot import draw
from foveate.benchmarks.plot_style import frontier, points, spread, style
from foveate.benchmarks.results import Results
from tests.benchmarks.synthetic import results


@pytest.fixture(scope="module")
def made() -> Results:
    return results()


def words(figure) -> set[str]:
    """All texts of a figure."""
    return {text.get_text() for text in figure.findobj(Text)}


def at_one_ratio(run: Results, keep: float = 0.25) -> Results:
    return Results(run.configuration, [r for r in run.rows if r["keep"] in (None, 1.0, keep)])


def test_the_frontier_has_methods_that_none_beats(made):
    assert "good" in frontier(made) and "poor" not in frontier(made)
    assert not set(frontier(made)) & {"oracle", "random", "downsample"}


def test_points_have_speed_up_and_interval(made):
    point = points(made, "good")[0]
    assert point.keep == 0.5 and point.speedup == pytest.approx(2)
    low, high = point.interval
    assert low <= point.accuracy <= high


def test_only_the_frontier_is_coloured(made):
    coloured = frontier(made)
    assert style(made, "poor", coloured)["color"] == "#c4c4c8"
    assert style(made, "good", coloured)["color"] != "#c4c4c8"


def test_curves_are_named_at_their_ends(made):
    said = words(plot_curves.pareto(made))
    assert "good" in said and "poor" not in said
    assert "normalised accuracy" in said and any("theoretical speed-up" in word for word in said)


def test_names_do_not_overlap():
    # Each method is a little faster and less accurate than the one before it.
    same = {name: {0.125: 0.94 - 0.01 * i} for i, name in enumerate("abcdef")}
    run = results(curves=same)
    rows = [
        {**r, "flops": r["flops"] * (1 - 0.01 * "abcdef".index(r["name"]))}
        if r["name"] in same
        else r
        for r in run.rows
    ]
    figure = plot_curves.pareto(Results(run.configuration, rows))
    FigureCanvasAgg(figure).draw()
    labels = [t for t in figure.axes[0].texts if t.get_text() in same]
    assert len(labels) == 6
    # The extent of an annotation has its line in it.
    boxes = [Text.get_window_extent(label) for label in labels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_one_ratio_is_drawn_as_bars(made, tmp_path):
    one = at_one_ratio(made)
    figure = plot_bars.pareto(one)
    bars = [patch for patch in figure.axes[0].patches if patch.get_height() == pytest.approx(0.66)]
    assert len(bars) == len(one.names)
    assert {"good", "poor", "random"} <= words(figure) and "4.00x" in words(figure)
    assert {"good", "poor"} <= words(plot_bars.tasks(one))
    files = draw(one, tmp_path / "one", ("svg",))
    assert [f.name for f in files] == ["one-pareto.svg", "one-tasks.svg"]


def test_several_ratios_are_drawn_as_curves(made, tmp_path):
    (path, _) = draw(made, tmp_path / "many", ("svg",))
    assert not re.search(r"<date>", path.read_text())


@pytest.mark.parametrize("values", [[], [1.0], [0, 0, 0, 0], [0.1, 0.11, 0.5, 0.9, 0.9], [3, 1, 2]])
def test_spread_keeps_order_and_distance(values):
    at = spread(list(values), 0.2) if values else []
    assert np.all(np.diff(np.sort(at)) >= 0.2 - 1e-9)
    ordered = [at[i] for i in np.argsort(values, kind="stable")]
    assert ordered == sorted(at)
