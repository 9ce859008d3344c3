"""`foveate bench`: accuracy and speed of methods on the synthetic tasks of the embedded models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli.models import DEFAULT
from foveate.cli.options import Device, DeviceOption, Dtype, DtypeOption, JsonOption, ModelOption
from foveate.cli.sentences import interruptible


class Mode(StrEnum):
    """How the answer of the model is determined."""

    likelihood = "likelihood"
    generate = "generate"


def bench(
    model: ModelOption = DEFAULT,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods as divprune,fastervlm+pyramiddrop, or all. a+b applies both, each with "
            "the retention ratio. Default: one method of each kind."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Retention ratios as 50%,0.25,8. Default: 100 % to 3.1 %."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks as I1,I9. Default: all that the model has learned.")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="Items per task. Default: enough for a few minutes."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All methods on 1,000 items per task. Takes hours.")
    ] = False,
    mode: Annotated[
        Mode,
        typer.Option(help="Answer: the likeliest candidate, or greedily generated text."),
    ] = Mode.likelihood,
    split: Annotated[str, typer.Option(help="Split of the tasks: val, test or test-ood.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results. Default: runs/bench-MODEL.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Also write the results as a Markdown page to this file.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the benchmark itself; exit code 1 on a failure.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="Results of a second training of the model, for --check."),
    ] = None,
    plot: Annotated[bool, typer.Option(help="Draw plots of the results.")] = True,
    measure: Annotated[
        bool, typer.Option(help="--no-measure: show the stored results of --out only.")
    ] = True,
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy and speed of methods on synthetic image tasks, with baselines.

    Each finished setting is saved: after an interruption, run the same command again to continue.
    """
    from foveate.benchmarks.acceptance import check as checked
    from foveate.benchmarks.results import Results
    from foveate.errors import FoveateError

    folder = out or Path("runs") / f"bench-{Path(model).name}"
    if against is not None and not check:
        raise FoveateError("--against is a second run for --check: add --check.")
    if full and (n is not None or methods is not None):
        raise FoveateError("--full means all methods and 1,000 items: omit --methods and --n.")
    second = Results.load(against) if against is not None else None
    if page is not None and not page.parent.is_dir():
        raise FoveateError(f"There is no folder {str(page.parent)!r} for {page.name}: create it.")
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
            made["checks"] = [{**vars(v), "outcome": v.outcome} for v in verdicts]
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
        raise FoveateError(f"{option} {text!r} is an empty list: add a value or omit the option.")
    return parts


def _keeps(text: str | None) -> list[float | int] | None:
    from foveate.cli.method_options import parse_keep

    parts = _list(text, "--keep")
    return None if parts is None else [parse_keep(part) for part in parts]


def _measure(
    folder: Path, name: str, device: Device, dtype: Dtype, progress: bool, **asked: Any
) -> Any:
    from foveate.benchmarks.runner import run
    from foveate.benchmarks.settings import select_methods
    from foveate.cli.models import load_model

    # Wrong names are found before the model is loaded.
    methods = asked.pop("methods")
    methods = "all" if methods == ["all"] else methods
    select_methods(methods)
    model, processor = load_model(name, device.value, dtype.value, not progress)
    known = Path(name).name if Path(name).is_dir() else name
    with interruptible(lambda: _kept(folder)):
        return run(
            model, processor, out=folder, methods=methods, name=known, progress=progress, **asked
        )


def _kept(folder: Path) -> str:
    from foveate.benchmarks.run_folder import RunFolder
    from foveate.errors import FoveateError

    try:
        rows = RunFolder.load(folder).rows
    except FoveateError:
        return "No setting is finished yet: run the same command again."
    finished = sum(row["kind"] == "setting" for row in rows)
    return (
        f"{finished} finished settings are saved in {folder}: run the same command again to "
        "continue."
    )


def _files(results: Any, folder: Path, page: Path | None, plot: bool) -> list[Path]:
    from importlib.util import find_spec

    from foveate.benchmarks.page import write_page
    from foveate.benchmarks.plot import draw

    written = []
    if plot and page is None and not find_spec("matplotlib"):
        # Plots are optional: without matplotlib the tables are still printed.
        typer.echo("Note: plots need matplotlib: pip install 'foveate[plot]'.", err=True)
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
    out.print("Key findings", style="bold")
    for sentence in key_findings(results):
        out.print(f"- {sentence}", markup=False)
    for v in verdicts:
        colour = {True: "green", False: "red", None: "yellow"}[v.passed]
        out.print(f"\n[{colour}]{v.number} {v.outcome}[/{colour}]", end=" ")
        out.print(f"{v.title}. {v.details}", markup=False)
    out.print(f"\nresults: {folder / 'results.jsonl'}", markup=False)
    for path in written:
        out.print(f"{path}", markup=False)
