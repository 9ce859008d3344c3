"""The measurement of whole calls runs, and its page shows every method."""

from dataclasses import replace

import pytest
import torch

from perf import prefill
from perf.__main__ import table
from tests.perf.test_layers import TINY


@pytest.mark.slow
def test_rows_and_page():
    shape = prefill.measure(replace(TINY, tower_mlp=16), torch.float32, "cpu", 1)
    rows = shape["methods"]
    assert rows.keys() == prefill.methods().keys()
    for name, row in rows.items():
        assert row["theoretical_speedup"] > 1 and row["measured_speedup"] > 0
        assert (row["vs_short_prompt"] is None) == (name in prefill.LAYERED)
    result = {"prefill": [shape], "selection": [], "decode": {"seconds": 0.001, "size": "8 x 8"}}
    page = table(result)
    assert all(page.count(f"| `{row['method']}` |") == 1 for row in rows.values())
    assert page.count("| – |") == len(prefill.LAYERED)
