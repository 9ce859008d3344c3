"""The bench pages are up to date with the stored rows."""

from pathlib import Path

import pytest

from foveate.benchmarks.page import page
from foveate.benchmarks.results import Results

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", ["bench", "image-bench"])
def test_page_is_up_to_date(name):
    results = Results.load(DOCS / name)
    pictures = sorted(p.name for p in DOCS.glob(f"{name}-*.svg"))
    assert page(results, pictures, "mini.md") == (DOCS / f"{name}.md").read_text()
