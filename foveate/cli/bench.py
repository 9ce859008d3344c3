"""`foveate bench`: what methods cost in accuracy, on the world that the embedded models know."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.ask import Device, Dtype
from foveate.cli.models import DEFAULT


class Mode(StrEnum):
    """How an answer is found."""

    likelihood = "likelihood"
    generate = "generate"


def bench(
    model: Annotated[
        str, typer.Option(help="Embedded model, or folder of one that was trained on the world.")
    ] = DEFAULT,
    methods: Annotated[
        str | None, typer.Option(help="Slugs as a,b or all; some of every kind by default.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Budgets as 50%,0.25,8; by default 100 % down to 3.1 %.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks as I1,I9; by default all that the model knows.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Items per task; by default a few minutes.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All methods on all items; takes long.")
    ] = False,
    mode: Annotated[Mode, typer.Option(help="How an answer is found.")] = Mode.likelihood,
    split: Annotated[str, typer.Option(help="val, test or test-ood.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; runs/bench-MODEL by default.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page about the results of the folder.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the bench itself; exits with 1 where it fails.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="Results of a second training, for --check.")
    ] = None,
    plot: Annotated[bool, typer.Option(help="Draw the results.")] = True,
    measure: Annotated[
        bool, typer.Option(help="With --no-measure only what the folder has is shown.")
    ] = True,
    device: Annotated[Device, typer.Option(help="auto takes CUDA where there is one.")] = (
        Device.auto
    ),
    dtype: Annotated[Dtype, typer.Option(help="auto is bfloat16 on CUDA, else float32.")] = (
        Dtype.auto
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, no progress bar.")] = False,
) -> None:
    """Measure what methods cost in accuracy, with the controls that give the numbers a meaning.

    Settings that are finished are kept: after an interruption the same command goes on.
    """
    from foveate.benchmarks.acceptance import check as checked
    from foveate.benchmarks.results import Results

    folder = out or Path("runs") / f"bench-{Path(model).name}"
    second = Results.load(against) if against is not None else None
    if page is not None and not page.parent.is_dir():
        from foveate.errors import FoveateError

        raise FoveateError(f"There is no folder {str(page.parent)!r} for {page.name}.")
    if measure:
        results = _measure(
            folder, model, device, dtype, not as_json,
            methods=_list(methods, "--methods"), keep=_keeps(keep), tasks=_list(tasks, "--tasks"),
            n=n, full=full, mode=mode.value, split=split,
        )  # fmt: skip
    else:
        results = Results.load(folder)
    written = _files(results, folder, page, plot)
    verdicts = checked(results, second) if check else []
    if as_json:
        from foveate.cli.console import print_json

        made = results.to_dict()
        made["folder"], made["files"] = str(folder), list(map(str, written))
        if check:
            made["checks"] = [{**vars(v), "verdict": v.outcome} for v in verdicts]
        print_json(made)
    else:
        _print(results, verdicts, written, folder)
    if any(v.passed is False for v in verdicts):
        raise typer.Exit(1)


def _list(text: str | None, option: str) -> list[str] | None:
    from foveate.cli.method_options import parse_list
    from foveate.errors import FoveateError

    parts = parse_list(text)
    if parts == []:
        raise FoveateError(f"{option} {text!r} names nothing; name some, or leave it out.")
    return parts


def _keeps(text: str | None) -> list[float | int] | None:
    from foveate.cli.method_options import parse_keep

    parts = _list(text, "--keep")
    return None if parts is None else [parse_keep(part) for part in parts]


def _measure(
    folder: Path, name: str, device: Device, dtype: Dtype, progress: bool, **asked: Any
) -> Any:
    from foveate.benchmarks.runner import run
    from foveate.benchmarks.settings import chosen
    from foveate.cli.console import waiting
    from foveate.cli.models import load_model

    # Cheap mistakes are found before the model loads.
    methods = asked.pop("methods")
    methods = "all" if methods == ["all"] else methods
    chosen(methods)
    with waiting(f"loading {name}"):
        model, processor = load_model(name, device.value, dtype.value)
    try:
        known = Path(name).name if Path(name).is_dir() else name
        return run(
            model, processor, out=folder, methods=methods, name=known, progress=progress, **asked
        )
    except KeyboardInterrupt:
        typer.echo(
            f"Interrupted. {_finished(folder)} finished settings are kept in {folder}; the same "
            "command goes on from there.",
            err=True,
        )
        raise typer.Exit(130) from None


def _finished(folder: Path) -> int:
    from foveate.benchmarks.run_folder import RunFolder

    return sum(row["kind"] == "setting" for row in RunFolder.load(folder).rows)


def _files(results: Any, folder: Path, page: Path | None, plot: bool) -> list[Path]:
    from importlib.util import find_spec

    from foveate.benchmarks.page import write_page
    from foveate.benchmarks.plot import draw

    written = []
    if plot and page is None and not find_spec("matplotlib"):
        # The numbers are what was asked for; without the extra there are only no pictures.
        typer.echo("Note: no plot without matplotlib; pip install 'foveate[plot]'.", err=True)
    elif plot:
        written += draw(results, folder / "bench")
    if page is not None:
        written += write_page(results, page, plot)
    return written


def _print(results: Any, verdicts: list[Any], written: list[Path], folder: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from foveate.benchmarks.key_findings import key_findings
    from foveate.benchmarks.tables import tables
    from foveate.cli.console import console

    out = console()
    for made in tables(results):
        table = Table(title=made.title, title_justify="left", title_style="bold", box=None)
        for number, name in enumerate(made.header):
            table.add_column(name, justify="right" if number else "left", header_style="dim")
        for row, strong in zip(made.rows, made.strong, strict=True):
            table.add_row(*map(escape, row), style="" if strong else "dim")
        out.print(table)
        out.print(made.note, style="dim", markup=False)
        out.print()
    for sentence in key_findings(results):
        out.print(f"- {sentence}", markup=False)
    for v in verdicts:
        colour = {True: "green", False: "red", None: "yellow"}[v.passed]
        out.print(f"\n[{colour}]{v.number} {v.outcome}[/{colour}]", end=" ")
        out.print(f"{v.title}. {v.details}", markup=False)
    out.print(f"\nrows: {folder / 'results.jsonl'}", markup=False)
    for path in written:
        out.print(f"{path}", markup=False)
