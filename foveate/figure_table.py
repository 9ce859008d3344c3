"""Figures as a small table: aligned text for terminals, HTML for notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

Cells = Sequence[str]


def figure(value: float) -> str:
    """A number with three significant digits and never an exponent: 0.00123, 12.3, 8,140."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = round(value, _decimals(value))
    # 9.999 rounds to 10.0, which has one decimal less.
    return f"{rounded:,.{max(0, _decimals(rounded))}f}"


def _decimals(value: float) -> int:
    """Decimals of `value` with three significant digits; negative from 1,000 on."""
    return 2 - math.floor(math.log10(abs(value)))


def percent(ratio: float) -> str:
    """A ratio in percent with one decimal: 25.0 %."""
    return f"{100 * ratio:.1f} %"


def text_table(header: Cells, rows: Sequence[Cells]) -> str:
    """Columns two spaces apart, the first one to the left and the others to the right.

    header: may hold line breaks, which keep columns narrow.
    """
    heads = [cell.split("\n") for cell in header]
    tall = max(map(len, heads))
    above = [[*[""] * (tall - len(head)), *head] for head in heads]
    lines = [*zip(*above, strict=True), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def html_table(title: str, header: Cells, rows: Sequence[Cells], notes: Cells = ()) -> str:
    """The same table as HTML, between a title and notes of one line each."""
    head = "".join(f"<th>{escape(cell).replace(chr(10), ' ')}</th>" for cell in header)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{"right" if number else "left"}">{escape(cell)}</td>'
            for number, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    below = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return (
        f"<div><strong>{escape(title)}</strong>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"
    )
