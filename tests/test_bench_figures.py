"""The same figure of the bench looks the same on every page."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {"nano": "bench.md", "image": "image-bench.md"}


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The cells of the first table after `title`, by method; the key of a marked method has †."""
    table = text.partition(title)[2].strip().partition("\n|---")[2].split("\n\n")[0]
    cells = [[c.strip() for c in line.strip("| ").split("|")] for line in table.split("\n")[1:]]
    return {re.sub(r"\[`(\w+)`\]\([^)]*\)|\*\*", r"\1", row[0]): row[1:] for row in cells}


def bench(model: str, title: str = "## Normalised accuracy by retention ratio"):
    text = (DOCS / PAGES[model]).read_text()
    header = text.partition(title)[2].partition("| method |")[2].split("\n")[0]
    names = [name.strip() for name in header.strip("| ").split("|")]
    return {name: dict(zip(names, row, strict=True)) for name, row in rows(text, title).items()}


def test_the_table_of_methods_has_the_figures_and_marks_of_the_bench_page():
    chosen = rows((DOCS / "choose-a-method.md").read_text(), "<!-- choose: make docs -->")
    accuracy, speed = bench("image"), bench("image", "### Theoretical prefill speed-up")
    compared = chosen.keys() & accuracy.keys()
    assert {"fastv †", "divprune", "lvlm_csp †", "random"} <= compared
    # Only methods without a result on the bench page are not compared, and no control is.
    assert {name for name in accuracy if name not in chosen} == {"oracle", "random_original"}
    assert {row[-1] for name, row in chosen.items() if name not in accuracy} == {"–"}
    for name in compared:
        at_25, at_10, cost = chosen[name][-3:]
        assert (at_25, at_10) == (accuracy[name]["25 %"], accuracy[name]["10 %"]), name
        full = speed[name]["25 %"].split("x")[0]
        if cost == "n/a":
            assert full == "n/a"
        else:
            assert float(cost.strip(" %")) == pytest.approx(100 / float(full), abs=0.6), name


@pytest.mark.parametrize("model", PAGES)
def test_pages_of_methods_have_the_figures_of_the_bench_page(model):
    compared = 0
    for marked, row in bench(model).items():
        page = DOCS / f"methods/{marked.removesuffix(' †')}.md"
        if not page.exists():
            continue
        (line,) = re.findall(rf"\| normalised accuracy on \[{model}\].*", page.read_text())
        shown = re.findall(r"(-?\d\.\d+) at ([\d.]+) %", line)
        ratios = {name: cell for name, cell in row.items() if re.fullmatch(r"[\d.]+ %", name)}
        assert shown == [(v, k.removesuffix(" %")) for k, v in ratios.items() if v != "n/a"]
        compared += len(shown)
    assert compared > 60


def test_stored_figures_are_not_rounded():
    """A figure that is rounded twice can differ from one that is rounded once."""
    stored = json.loads((DOCS.parent / "foveate/measured.json").read_text())
    figures = [x for row in stored.values() for model in row.values() for x in model.values()]
    assert any(round(x, 6) != x for x in figures)
