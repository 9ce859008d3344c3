"""`foveate methods`: the catalogue, or all about one method."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer


def methods(
    slug: Annotated[str | None, typer.Argument(help="Show all about this method.")] = None,
    available: Annotated[
        bool, typer.Option("--available", help="Only methods that can be used now.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the methods, or show one."""
    from foveate.catalogue import catalog, describe
    from foveate.cli.console import print_json

    if slug is not None:
        described = describe(slug)
        print_json(described) if as_json else _print_one(described)
        return
    rows = [asdict(i) for i in catalog() if not available or i.status == "available"]
    print_json(rows) if as_json else _print_all(rows)


def _print_all(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from foveate.cli.console import console

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("slug", "name", "year", "stages", "paper", "status"):
        table.add_column(name, no_wrap=name in ("slug", "paper", "status"))
    for row in rows:
        usable = row["status"] == "available"
        table.add_row(
            row["slug"],
            row["name"],
            str(row["year"] or ""),
            " ".join(row["stages"]),
            row["paper"],
            row["status"],
            style="" if usable else "dim",
        )
    usable = sum(row["status"] == "available" for row in rows)
    out = console()
    out.print(table)
    out.print(f"\n{len(rows)} systems, {usable} available; 'foveate methods SLUG' shows one.")


def _print_one(described: dict[str, Any]) -> None:
    from rich.table import Table

    from foveate.cli.console import console

    out = console()
    if "about" in described:
        out.print(described["about"], markup=False)
    else:
        out.print(f"{described['name']}: {described['title']}", markup=False)
    table = Table.grid(padding=(0, 3))
    names = ("slug", "class", "year", "paper", "stages", "needs", "families", "trained", "status")
    for name in names:
        value = described.get(name)
        if value is not None and value != "":
            text = ", ".join(value) if isinstance(value, list | tuple) else str(value)
            table.add_row(name, text or "nothing")
    for model, row in described.get("bench", {}).items():
        cells = (f"{skill:.2f} at {100 * float(keep):g} %" for keep, skill in row.items())
        table.add_row(f"R on {model}", ", ".join(cells))
    out.print()
    out.print(table, markup=False)
    if "parameters" in described:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
        for name in ("parameter", "default", "meaning"):
            table.add_column(name)
        for row in described["parameters"]:
            table.add_row(row["name"], repr(row["default"]), row["doc"])
        out.print()
        out.print(table, markup=False)
