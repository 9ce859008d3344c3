"""`foveate methods`: the catalogue, or the documentation of one method."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer


def methods(
    slug: Annotated[
        str | None, typer.Argument(help="Show the documentation of this method.")
    ] = None,
    available: Annotated[
        bool, typer.Option("--available", help="List only methods that are available.")
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
    from foveate.systems import where

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("slug", "name", "year", "where", "paper", "status"):
        table.add_column(name, no_wrap=name in ("slug", "paper", "status"))
    for row in rows:
        table.add_row(
            row["slug"],
            row["name"],
            str(row["year"] or ""),
            where(row["stages"]),
            row["paper"],
            row["status"],
            style="" if row["status"] == "available" else "dim",
        )
    usable = sum(row["status"] == "available" for row in rows)
    out = console()
    out.print(table)
    out.print(
        f"\n{len(rows)} systems: {usable} available, {len(rows) - usable} planned and not "
        "available yet. 'foveate methods SLUG' shows one."
    )


def _print_one(described: dict[str, Any]) -> None:
    from rich.table import Table

    from foveate.cli.console import console

    out = console()
    if "about" in described:
        out.print(described["about"], markup=False)
    else:
        out.print(described["title"], markup=False)
    table = Table.grid(padding=(0, 3))
    for name, text in _facts(described).items():
        table.add_row(name, text)
    out.print()
    out.print(table, markup=False)
    if "parameters" in described:
        out.print("\nParameters:")
    for row in described.get("parameters", ()):
        out.print(f"  {row['name']}={row['default']!r}: {row['doc']}", markup=False)


def _facts(described: dict[str, Any]) -> dict[str, str]:
    """The rows of the table of one system, in words."""
    from foveate.systems import where

    facts = {"slug": described["slug"]}
    if described["status"] == "available":
        facts["class"] = f"foveate.{described['class']}"
    facts |= {
        "year": str(described["year"] or ""),
        "paper": described["paper"],
        "where": where(described["stages"]),
    }
    if described["status"] == "available":
        facts |= {
            "recorded signals": ", ".join(described["needs"]) or "none",
            "keep means": described["keep_means"],
            "prompt-agnostic": described["selection"],
            "model families": described["families"],
        }
    facts["learned modules"] = "yes" if described["trained"] else "no"
    for model, row in described.get("bench", {}).items():
        cells = (f"{score:.2f} at {100 * float(keep):g} %" for keep, score in row.items())
        facts[f"normalised accuracy on {model}"] = ", ".join(cells)
    planned = "planned, not available yet"
    facts["status"] = planned if described["status"] == "planned" else described["status"]
    return {name: text for name, text in facts.items() if text}
