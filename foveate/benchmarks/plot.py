"""The plots of a run: normalised accuracy against theoretical speed-up, and accuracy per task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foveate.benchmarks.errors import BenchError
from foveate.benchmarks.results import Results


def draw(results: Results, stem: str | Path, kinds: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write the plots of a run and return the files that were written.

    Args:
        results: the run. With one retention ratio the plots are bars, with several they are curves.
        stem: start of the file names; they end in -pareto and -tasks.
        kinds: file formats that matplotlib knows.
    """
    try:
        import matplotlib
    except ImportError:
        raise BenchError(
            "The plot needs matplotlib: pip install 'foveate[plot]', or pass --no-plot."
        ) from None
    from foveate.benchmarks import plot_bars, plot_curves

    plots = plot_bars if len(results.keeps) == 1 else plot_curves
    written = []
    # Equal results give equal files: no dates, no random ids.
    with matplotlib.rc_context({"svg.hashsalt": "foveate", "font.size": 9, "svg.fonttype": "path"}):
        for name, figure in (("pareto", plots.pareto(results)), ("tasks", plots.tasks(results))):
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
