"""Progress of `foveate tune`, and its result: the Pareto-optimal settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from foveate.cli.console import console
from foveate.method import from_dict
from foveate.tuning.evaluations import Score
from foveate.tuning.pareto import pareto_front
from foveate.tuning.plan import Plan

ROWS = 12


class Watcher:
    """Shows the Pareto front after every measurement, on standard error if it is a terminal."""

    def __init__(self, show: bool):
        errors = Console(stderr=True)
        self._live = Live(console=errors, transient=True) if show and errors.is_terminal else None
        self._scores: dict[str, Score] = {}

    def __enter__(self) -> Watcher:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, score: Score) -> None:
        if self._live is None:
            return
        self._scores[repr(score.method)] = score
        full = next(iter(self._scores.values()))
        table = _table(f"{len(self._scores)} settings measured, last: {_source(score)}")
        for best in pareto_front(self._scores.values())[-ROWS:]:
            change = best.accuracy - full.accuracy
            table.add_row(_words(best.method), f"{best.cost:.1%}", _points(change), "")
        self._live.update(table, refresh=True)


def print_plan(plan: Plan, path: Path) -> None:
    """The Pareto front on both splits, the chosen setting, and where the plan is."""
    out = console()
    drop = plan.asked["max_drop"]
    table = _table("Pareto-optimal settings on the search split")
    for row in plan.front:
        table.add_row(
            row["words"],
            f"{row['fit']['cost']:.1%}",
            _points(-row["fit"]["drop"]),
            _with_interval(row["held_out"]),
            style="bold" if row["method"] == plan.setting else "",
        )
    out.print(table)
    out.print(f"\n{plan.evaluations} settings measured", style="dim", markup=False)
    if plan.setting is None:
        out.print(
            f"No cheaper setting stays within an accuracy drop of {drop:.1%} on the search split.",
            style="yellow",
        )
        return
    held = plan.held_out
    out.print(f"\n{plan.method!r}", style="bold", markup=False, soft_wrap=True)
    out.print(
        f"Prefill FLOPs: {held['cost']:.1%} of the full model. Held-out split ({held['n']} "
        f"samples): accuracy {held['accuracy']:.1%}, {_with_interval(held)} points (95 % CI).",
        markup=False,
    )
    if held["drop"] > drop:
        out.print(
            f"Warning: on the held-out split the drop is larger than --max-drop {drop:.1%} "
            "(selection bias: the best of many settings was chosen on the search split). The plan "
            "is written all the same. Use more samples or a smaller --max-drop.",
            style="yellow",
        )
    out.print(f"plan: {path}", markup=False)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="dim", box=None)
    table.add_column("setting", header_style="dim")
    for name in ("prefill FLOPs", "accuracy, search split", "accuracy, held-out split (95 % CI)"):
        table.add_column(name, justify="right", header_style="dim")
    return table


def _with_interval(held: dict[str, Any]) -> str:
    low, high = held["drop_interval"]
    return f"{_points(-held['drop'])} ({_points(-high)} to {_points(-low)})"


def _points(change: float) -> str:
    """A change of accuracy in points, with its sign."""
    return f"{100 * change + 0.0:+.1f}"


def _source(score: Score) -> str:
    """What proposed a setting; stored rows call the full model the bare model."""
    return "full model" if score.source == "bare model" else score.source


def _words(method: dict[str, Any]) -> str:
    return repr(from_dict(method)) or "full model"
