"""A search as it goes, and what it found: the settings that no cheaper one equals."""

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
    """Is told of every measurement and draws the front; draws nothing where no one watches."""

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
        table = _table(f"{len(self._scores)} measured, last by {score.source}")
        for best in pareto_front(self._scores.values())[-ROWS:]:
            lost = full.accuracy - best.accuracy
            table.add_row(_words(best.method), f"{best.cost:.1%}", f"{100 * lost:+.1f}", "")
        self._live.update(table, refresh=True)


def print_plan(plan: Plan, path: Path) -> None:
    """The front with both figures, what was chosen, and how to use it."""
    out = console()
    drop = plan.asked["max_drop"]
    table = _table("no cheaper setting is as accurate on the fitted part")
    for row in plan.front:
        held = row["held_out"]
        low, high = (100 * x for x in held["drop_interval"])
        table.add_row(
            row["words"],
            f"{row['fit']['cost']:.1%}",
            f"{100 * row['fit']['drop']:+.1f}",
            f"{100 * held['drop']:+.1f} ({low:+.1f} to {high:+.1f})",
            style="bold" if row["method"] == plan.setting else "",
        )
    out.print(table)
    out.print(f"\n{plan.evaluations} settings measured", style="dim", markup=False)
    if plan.setting is None:
        out.print(f"Nothing cheaper loses at most {drop:.1%} on the fitted part.", style="yellow")
        return
    held = plan.held_out
    low, high = (100 * x for x in held["drop_interval"])
    out.print(f"\n{plan.method!r}", style="bold", markup=False, soft_wrap=True)
    out.print(
        f"{held['cost']:.1%} of the prefill FLOPs; on {held['n']} held-out samples accuracy "
        f"{held['accuracy']:.1%}, lost {100 * held['drop']:.1f} points "
        f"(95 %: {low:.1f} to {high:.1f})",
        markup=False,
    )
    if held["drop"] > drop:
        out.print(
            f"That is more than the {drop:.1%} asked for: the fitted part flattered it. Give more "
            "samples, or a smaller --max-drop.",
            style="yellow",
        )
    out.print(f"plan: {path}", markup=False)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="dim", box=None)
    table.add_column("setting", header_style="dim")
    for name in ("FLOPs", "points lost", "held out (95 %)"):
        table.add_column(name, justify="right", header_style="dim")
    return table


def _words(method: dict[str, Any]) -> str:
    return repr(from_dict(method)) or "bare model"
