"""The shipped page says what the shipped rows say."""

from pathlib import Path

from foveate.benchmarks.page import page
from foveate.benchmarks.results import Results

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_page_is_up_to_date():
    results = Results.load(DOCS / "bench")
    pictures = sorted(p.name for p in DOCS.glob("bench-*.svg"))
    assert page(results, pictures) == (DOCS / "bench.md").read_text()
