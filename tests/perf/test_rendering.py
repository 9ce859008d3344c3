"""Pages are written from stored results, so text and numbers cannot drift apart."""

import json
from pathlib import Path

from perf.__main__ import SECTIONS
from perf.rendering import pages

RESULTS = Path(__file__).parents[2] / "perf/results"
BODIES = {name: page for name, (_, page) in SECTIONS.items()}


def test_every_page_is_what_its_result_renders_to():
    rendered = pages(RESULTS, BODIES)
    assert {p.name for p in RESULTS.glob("*.md")} == {p.name for p in rendered}
    for path, text in rendered.items():
        assert path.read_text() == text, f"{path.name}: run python -m perf --render"


def test_a_page_shows_the_numbers_of_its_file(tmp_path):
    result = json.loads((RESULTS / "cpu.json").read_text())
    result["prefill"][0]["methods"]["divprune"]["theoretical_speedup"] = 12.34
    (tmp_path / "cpu.json").write_text(json.dumps(result))
    (text,) = pages(tmp_path, BODIES).values()
    assert "| 12.34× |" in text
