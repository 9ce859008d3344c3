"""Which speed targets a result meets, as text for its page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]

EFFICIENCY = 0.85

# A target as text, and whether the row of a method meets it.
Target = tuple[str, Callable[[Row], bool]]


def at_least(key: str, least: float, name: str) -> Target:
    """A figure that must not be smaller, compared as it is shown, with two decimals."""
    return f"{name} at least {least:g}", lambda row: round(row[key], 2) >= least


def at_most(key: str, most: float, name: str, text: str, digits: int = 2) -> Target:
    """A figure that must not be larger, compared as it is shown.

    Args:
        key: the figure in the row of a method.
        most: the limit.
        name: the figure as text.
        text: the limit as text.
        digits: decimals with which the figure is shown. Default 2.
    """
    return f"{name} at most {text}", lambda row: round(row[key], digits) <= most


def told(targets: Iterable[Target], rows: Iterable[Row], *more: str) -> str:
    """One line: for each target the number of methods that meet it, then other outcomes."""
    rows = list(rows)
    parts = [f"{text}: {sum(map(good, rows))} of {len(rows)}" for text, good in targets]
    return f"Targets, and how many methods meet them: {'; '.join([*parts, *more])}."


def outcome(good: bool) -> str:
    """A target that is not about methods."""
    return "met" if good else "missed"
