from dataclasses import replace

import pytest
import torch

from foveate.families.base import raster
from perf import selection
from perf.timing import extra_bytes

GIGABYTE = 1e9


@pytest.mark.slow
@pytest.mark.parametrize("slug", selection.methods())
def test_choosing_among_many_tokens_needs_less_than_a_gigabyte(slug):
    method = selection.methods()[slug]
    for layout in selection.WEIGHED:
        assert extra_bytes(selection.choosing(method, layout)) < GIGABYTE


def test_methods_get_their_rows(monkeypatch):
    some = {slug: method for slug, method in selection.methods().items() if slug < "d"}
    monkeypatch.setattr(selection, "methods", lambda: some)
    monkeypatch.setattr(selection, "TIMED", {144: raster(1, 12, 12), 256: raster(1, 16, 16)})
    monkeypatch.setattr(selection, "WEIGHED", (raster(1, 16, 16),))
    monkeypatch.setattr(selection, "mergers", dict)
    result = selection.measure(1, prefill=lambda n: lambda: sum(range(100 * n)))
    assert result["methods"].keys() == some.keys()
    for row in result["methods"].values():
        assert row["seconds"][144] > 0 and row["extra_bytes"] >= 0
    lines = selection.page(result).splitlines()
    assert len(lines) == 4 + len(result["methods"]) and "| 144 tokens | share | 256 " in lines[2]


@pytest.mark.slow
@pytest.mark.parametrize("slug", selection.mergers())
def test_what_is_decided_in_the_tower_is_timed_and_weighed(slug, monkeypatch):
    monkeypatch.setattr(selection, "SEEING", replace(selection.SEEING, visual=64, tower_layers=12))
    model = selection.SEEING.build(torch.float32, "cpu")
    taken, most = selection.merging(model, selection.mergers()[slug], 2)
    assert 0 < taken < 10 and 0 <= most < GIGABYTE
