"""The test-time adaptation benchmark: streams, stored rows and the page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from foveate.benchmarks.adaptation import METHODS, main, stream
from foveate.benchmarks.adaptation_tables import MARK, tables
from foveate.mini.world.scene import Canvas

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "tca.md"


def test_streams_repeat_and_shifts_keep_the_order():
    canvas = Canvas(64, 8)
    plain, labels, classes = stream("place", "none", 3, 20, canvas, 0)
    again, same, _ = stream("place", "noise", 3, 20, canvas, 0)
    assert labels == same and set(labels) == set(classes)
    assert all(not np.array_equal(a, b) for a, b in zip(plain, again, strict=True))
    assert all(map(np.array_equal, again, stream("place", "noise", 3, 20, canvas, 0)[0]))
    assert stream("place", "none", 3, 20, canvas, 1)[1] != labels


@pytest.mark.slow
def test_the_command_writes_rows_and_goes_on(tmp_path, capsys):
    asked = ["--kinds", "place", "--shifts", "none,cast", "--n", "10", "--out", str(tmp_path)]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARK}\n{MARK}\nafter\n")
    main([*asked, "--json", "--page", str(page)])
    rows = json.loads(capsys.readouterr().out)
    assert [r["method"] for r in rows] == 2 * list(METHODS)
    assert all(len(r["right"]) == 10 and r["flops"] <= r["flops_full"] * 1.05 for r in rows)
    by = {r["method"]: r for r in rows}
    assert by["TCA 0.1"]["tokens"][-1] < by["TCA 0.035"]["tokens"][-1] < by["CLIP"]["tokens"][-1]
    assert tables(rows) in page.read_text()
    main([*asked, "--json"])
    assert json.loads(capsys.readouterr().out) == rows
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == len(rows)
    with pytest.raises(SystemExit, match="has rows with n=10"):
        main([*asked[:-4], "--n", "11", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="'fire' is not one of"):
        main(["--shifts", "fire", "--out", str(tmp_path)])


def test_the_page_has_the_tables_of_the_stored_rows():
    text = PAGE.read_text()
    rows = [json.loads(r) for r in (ROOT / "docs/tca/results.jsonl").read_text().splitlines()]
    assert tables(rows) in text


def test_the_page_runs():
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        exec(compile(block, "docs/tca.md", "exec"), {})
