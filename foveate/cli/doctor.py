"""`foveate doctor`: check the installation, its extras and known problems."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check extras, PyTorch, device and known problems. Exits with 1 on a problem."""
    from foveate.cli.checkup import checkup
    from foveate.cli.console import print_json

    found = checkup()
    print_json(found) if as_json else _print(found)
    if found["problems"]:
        raise typer.Exit(1)


def _print(found: dict[str, Any]) -> None:
    from rich.table import Table

    from foveate.cli.console import console

    out = console()
    table = Table.grid(padding=(0, 3))
    for name, value in found["system"].items():
        table.add_row(name, str(value))
    out.print(table, markup=False)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("extra", "packages", "state"):
        table.add_column(name)
    for extra in found["extras"]:
        packages = ", ".join(f"{n} {v}" if v else n for n, v in extra["packages"].items())
        table.add_row(extra["name"], packages, extra["state"])
    out.print()
    out.print(table, markup=False)
    out.print()
    for problem in found["problems"]:
        out.print(f"Problem: {problem}", style="red", markup=False)
    for note in found["notes"]:
        out.print(f"Note: {note}", style="yellow", markup=False)
    if not found["problems"]:
        out.print("No problems found.", style="green")
