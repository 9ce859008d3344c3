"""A demonstration in half a minute: `python -m foveate.demo --out demo_out`.

The embedded model nano answers questions about test pictures with 100 %, 25 % and 10 % of the
visual tokens. One sheet per picture shows which patches are kept, merged and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from PIL import Image

from foveate.errors import FoveateError

ITEMS = {"I1": 0, "I2": 4, "I9": 0}
"""Test items by task: attribute, position, text.

The one of "I2" is the first on a light background that the full model and every method at 25 %
answer correctly; the README shows it.
"""

SHARES = (0.25, 0.1)
METHODS = ("divprune", "visionzip", "fastv")
WIDTH = 1280
"""Pixels that a sheet is wide at most."""

REPEATS = 5
"""Runs per row; the median of their times is shown."""

_GAP = 14
_UNTRAINED = "nano was not trained on photographs: the answer means nothing"


@dataclass(frozen=True)
class Case:
    """One picture with its question.

    Attributes:
        name: what the file is called.
        image: the picture.
        question: about it.
        expected: the correct answer; None if the model was not trained on such pictures.
    """

    name: str
    image: Image.Image
    question: str
    expected: str | None


@dataclass(frozen=True)
class Row:
    """One method at one retention ratio.

    Attributes:
        method: the method.
        text: the model's answer.
        report: of the call.
        milliseconds: measured prefill, median of `REPEATS` runs.
    """

    method: Any
    text: str
    report: Any
    milliseconds: float


def cases() -> list[Case]:
    """Synthetic test pictures, and the photograph of the package."""
    from foveate.assets import PHOTOGRAPH
    from foveate.media import load_image
    from foveate.mini import world

    made = []
    for task, number in ITEMS.items():
        (item,) = world.items(task, "test", 1, start=number)
        made.append(Case(world.TASKS[task].title, item.image(), item.question, item.answer))
    photograph = load_image(PHOTOGRAPH)
    return [*made, Case("photograph", photograph, "what colour is the square?", None)]


def rows(model: Any, processor: Any, case: Case, slugs: list[str]) -> list[Row]:
    """The full model first, then every method at every retention ratio."""
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
    title += f"  (correct: {case.expected})" if case.expected else f"  ({_UNTRAINED})"
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
        colour = "dim" if case.expected is None else "green" if is_correct(case, row) else "red"
        made.add_row(
            _label(row),
            f"[{colour}]{escape(row.text)}[/{colour}]",
            f"{sum(report.tokens_out)} of {sum(report.tokens_in)}",
            figure(report.flops / 1e9),
            percent(report.flops / report.flops_full),
            figure(row.milliseconds),
        )
    return made


def is_correct(case: Case, row: Row) -> bool:
    """Whether the answer of a row is the expected one."""
    return row.text.lower() == str(case.expected).lower()


def _label(row: Row) -> str:
    return f"{type(row.method).__name__} {row.method.keep:.0%}" if _reduces(row) else "all tokens"


def _reduces(row: Row) -> bool:
    return bool(row.method.parts())


def sheet(case: Case, found: list[Row], processor: Any) -> Image.Image:
    """The image, then what each method keeps of it at each retention ratio, in rows."""
    from foveate.view import Head, overlay, seen, side_by_side
    from foveate.view.head import legend_of

    picture = seen(case.image, processor)
    full, *reduced = found
    answers = [f"Full model, {sum(full.report.tokens_in)} visual tokens: {full.text}"]
    if case.expected is None:
        answers = [_UNTRAINED]
    images, captions = [picture], ["input image"]
    for row in reduced:
        images.append(overlay(picture, row.report.traces[0]))
        verdict = "correct" if is_correct(case, row) else "wrong"
        said = "" if case.expected is None else f"\n{row.text} ({verdict})"
        captions.append(f"{_label(row)}\n{_counted(row.report.traces[0])}{said}")
    legend = legend_of([(row.report.traces[0], None) for row in reduced])
    head = Head(f"Question: {case.question}", answers, legend)
    columns = min(len(images), 7)
    height = min(230, (WIDTH - _GAP * (columns + 1)) // columns)
    return side_by_side(images, captions, height=height, columns=columns, head=head)


def _counted(trace: Any) -> str:
    """The tokens that are left of an image, by what they stand for."""
    from foveate.view import planes

    drawn = planes(trace)
    merged = {int(i) for plane in drawn for i in plane.holder[plane.slots > 1]}
    added = int((trace.index < 0).sum())
    total = len(trace.index)
    parts = [
        f"{total - len(merged) - added} kept" if merged or added else "",
        f"{len(merged)} merged" if merged else "",
        f"{added} [CLS]" if added else "",
    ]
    told = ", ".join(part for part in parts if part)
    first = trace.by_layer[-1].first if len(trace.by_layer) > 1 else 0
    return f"{total} tokens" + (f" from layer {first} on" if first else "") + (told and f": {told}")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo_out"),
    method: Annotated[list[str] | None, typer.Option(help="Slug of a method; repeatable.")] = None,
) -> None:
    """Ask the embedded model with 100 %, 25 % and 10 % of its visual tokens."""
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
        # The first call of a process is slower than all later ones.
        _ask(model, processor, all_cases[0], Composed())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FoveateError(
            f"The folder {str(out)!r} can't be created ({error.strerror})."
        ) from None
    written = []
    for case in all_cases:
        found = rows(model, processor, case, slugs)
        printer.print(table(case, found))
        printer.print()
        path = out / f"{case.name}.png"
        sheet(case, found, processor).save(path)
        written.append(path)
    printer.print("kept, merged and dropped patches:")
    for path in written:
        printer.print(f"  {path}", markup=False)


if __name__ == "__main__":
    typer.run(demo)
