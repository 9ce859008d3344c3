"""The main job in half a minute: `python -m foveate.demo --out demo_out`.

The embedded model answers questions about pictures that it has never seen, with all visual tokens
and with a quarter and a tenth of them; what was kept is drawn on the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from PIL import Image

from foveate.errors import FoveateError

TASKS = ("I1", "I2", "I9")
"""Tasks of the world whose first test picture is shown: attribute, place, word."""

SHARES = (0.25, 0.1)
METHODS = ("divprune", "visionzip")
REPEATS = 5
"""Runs per row; the median of their times is shown."""


@dataclass(frozen=True)
class Case:
    """A picture with its question; `expected` is None where the model can't know."""

    name: str
    image: Image.Image
    question: str
    expected: str | None


@dataclass(frozen=True)
class Row:
    """One method at one budget: what the model said, and what it cost."""

    method: Any
    text: str
    report: Any
    milliseconds: float


def cases() -> list[Case]:
    """Held-out pictures of the world, and the photograph of the package."""
    from foveate.assets import PHOTOGRAPH
    from foveate.media import load_image
    from foveate.mini import world

    made = []
    for task in TASKS:
        item = world.items(task, "test", 1)[0]
        made.append(Case(world.TASKS[task].title, item.image(), item.question, item.answer))
    photograph = load_image(PHOTOGRAPH)
    return [*made, Case("photograph", photograph, "what colour is the square?", None)]


def rows(model: Any, processor: Any, case: Case, slugs: list[str]) -> list[Row]:
    """The full model first, then every method at every share."""
    from foveate.method import Composed, create

    methods = [create(slug, keep=share) for slug in slugs for share in SHARES]
    made = []
    for method in (Composed(), *methods):
        answers = [_ask(model, processor, case, method) for _ in range(REPEATS)]
        times = [1000 * each.report.seconds["prefill"] for each in answers]
        made.append(Row(method, answers[-1].text, answers[-1].report, median(times)))
    return made


def _ask(model: Any, processor: Any, case: Case, method: Any) -> Any:
    from foveate.answering import answer

    return answer(model, processor, [case.image], case.question, method, max_new_tokens=8)


def table(case: Case, found: list[Row]) -> Any:
    """The rows as a table for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    from foveate.figure_table import figure, percent

    title = f"{case.name}: {case.question}"
    title += f"  (right: {case.expected})" if case.expected else "  (nano can't know)"
    made = Table(title=escape(title), title_justify="left", title_style="bold", box=None)
    for name, justify in (
        ("method", "left"),
        ("answer", "left"),
        ("visual tokens", "right"),
        ("prefill GFLOPs", "right"),
        ("ratio", "right"),
        ("prefill ms", "right"),
    ):
        made.add_column(name, justify=justify, header_style="dim")  # type: ignore[arg-type]
    for row in found:
        report = row.report
        colour = "dim" if case.expected is None else "green" if _right(case, row) else "red"
        made.add_row(
            _label(row),
            f"[{colour}]{escape(row.text)}[/{colour}]",
            f"{sum(report.tokens_out)} of {sum(report.tokens_in)}",
            figure(report.flops / 1e9),
            percent(report.flops / report.flops_full),
            figure(row.milliseconds),
        )
    return made


def _right(case: Case, row: Row) -> bool:
    return row.text.lower() == str(case.expected).lower()


def _label(row: Row) -> str:
    return f"{type(row.method).__name__} {row.method.keep:.0%}" if _reduces(row) else "all tokens"


def _reduces(row: Row) -> bool:
    return bool(row.method.parts())


def sheet(case: Case, found: list[Row], processor: Any) -> Image.Image:
    """One line of pictures per method: the original, then what each budget kept."""
    from foveate.view import overlay, seen, side_by_side

    picture = seen(case.image, processor)
    full = found[0]
    if case.expected is None:
        about = "A photograph: nano knows only its own world, so look at the tokens alone."
    else:
        about = f"{case.question}\nall {sum(full.report.tokens_in)} tokens: {full.text}"
    images, captions = [], []
    for number, row in enumerate(found[1:]):
        if number % len(SHARES) == 0:
            images.append(picture)
            captions.append(about)
        images.append(overlay(picture, row.report.traces[0]))
        verdict = "right" if _right(case, row) else "wrong"
        said = "" if case.expected is None else f": {row.text} ({verdict})"
        captions.append(f"{_label(row)}\n{sum(row.report.tokens_out)} tokens{said}")
    return side_by_side(images, captions, height=360, columns=len(SHARES) + 1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo_out"),
    method: Annotated[list[str] | None, typer.Option(help="Slug of a method; repeatable.")] = None,
) -> None:
    """Ask the embedded model with all, a quarter and a tenth of its visual tokens."""
    try:
        _run(out, method or list(METHODS))
    except FoveateError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None


def _run(out: Path, slugs: list[str]) -> None:
    from foveate.cli.console import console, waiting
    from foveate.cli.models import DEFAULT, load_model
    from foveate.method import Composed, method_class

    for slug in slugs:
        method_class(slug)
    printer = console()
    model, processor = load_model(DEFAULT, "auto", "auto")
    with waiting("warming up"):
        all_cases = cases()
        # The first call of a process pays for what all later ones find ready.
        _ask(model, processor, all_cases[0], Composed())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FoveateError(f"{str(out)!r} can't be made ({error.strerror}).") from None
    written = []
    for case in all_cases:
        found = rows(model, processor, case, slugs)
        printer.print(table(case, found))
        printer.print()
        path = out / f"{case.name}.png"
        sheet(case, found, processor).save(path)
        written.append(path)
    printer.print("what was kept, drawn on the pictures:")
    for path in written:
        printer.print(f"  {path}", markup=False)


if __name__ == "__main__":
    typer.run(demo)
