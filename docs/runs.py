"""The stored bench runs that the pages are written from, each loaded once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from foveate.benchmarks.page import page
from foveate.benchmarks.results import Results

DOCS = Path(__file__).resolve().parent
RUNS = ("bench", "image-bench")


@cache
def results(name: str) -> Results:
    """The run in the folder `name` of docs."""
    return Results.load(DOCS / name)


def bench_pages() -> dict[Path, str]:
    """The page of each run with its stored plots."""
    return {
        DOCS / f"{name}.md": page(
            results(name), sorted(p.name for p in DOCS.glob(f"{name}-*.svg")), "mini.md"
        )
        for name in RUNS
    }
