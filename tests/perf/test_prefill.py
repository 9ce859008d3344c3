"""The measurement of whole calls runs, and its page shows every method."""

from dataclasses import replace

import pytest
import torch

from perf import prefill
from perf.prefill_page import page as written
from tests.perf.test_layers import TINY


@pytest.mark.slow
def test_rows_and_page():
    shape = prefill.measure(replace(TINY, tower_mlp=16), torch.float32, "cpu", 1)
    rows = shape["methods"]
    assert rows.keys() == prefill.methods().keys()
    for name, row in rows.items():
        assert row["theoretical_speedup"] > 1 and row["measured_speedup"] > 0
        assert (row["vs_short_prompt"] is None) == (name in prefill.LAYERED)
    page = written({**BASE, "prefill": [shape]})
    assert all(page.count(f"| `{row['method']}` |") == 1 for row in rows.values())
    table = [line for line in page.splitlines() if line.startswith("| `")]
    assert sum("| – |" in line for line in table) == len(prefill.LAYERED)


def stored():
    """A shape with round figures: 10 ms to the first token with keep=1.0, 8 ms without it."""
    row = {
        "method": "FastV()",
        "tokens": [576, 288],
        "theoretical_speedup": 2.0,
        "measured_speedup": 1.8,
        "speedup_efficiency": 0.9,
        "vs_short_prompt": None,
        "selection_overhead": -0.002,
        "peak_memory_over_bare": 1.01,
        "time_per_output_token_over_bare": 1.0,
        "kv_bytes_over_bare": 0.5,
        "seconds": {"encode": 0.002, "select": 0.001, "prefill": 0.002, "per_token": 0.004},
    }
    return {
        "shape": "tiny",
        "visual_tokens": 576,
        "text_tokens": 32,
        "batch": 1,
        "bare_seconds": {"encode": 0.002, "select": 0.001, "prefill": 0.007, "per_token": 0.003},
        "keep_all_over_bare": 1.25,
        "keep_all_peak_memory_over_bare": 1.0,
        "methods": {"fastv": row},
    }


BASE = {
    "selection": [],
    "decode": {"seconds": 0.001, "size": "8 x 8"},
    "machine": {"dtype": "torch.float32"},
}


def test_the_time_to_the_first_token_is_compared_with_the_full_model_without_an_attachment():
    lines = written({**BASE, "prefill": [stored()]}).splitlines()
    (fastv,) = [line for line in lines if line.startswith("| `FastV()`")]
    cells = [cell.strip() for cell in fastv.strip("|").split("|")]
    assert cells[1] == "576 → 288 (after the last pruning layer)"
    # 8 ms / 5 ms; a negative overhead is noise.
    assert cells[7] == "1.60×" and cells[6] == "0.00 %"
    stages = [line for line in lines if line.startswith(("| full model", "| attached", "| fastv"))]
    assert stages == [
        "| full model, no attachment | – | – | – | 8.0 (derived) | 3.0 |",
        "| attached, keep=1.0 | 2.0 | 1.0 | 7.0 | 10.0 | – |",
        "| fastv | 2.0 | 1.0 | 2.0 | 5.0 | 4.0 |",
    ]


def test_the_page_says_which_targets_are_met():
    (line,) = [
        line
        for line in written({**BASE, "prefill": [stored()]}).splitlines()
        if line.startswith("Targets")
    ]
    assert "speed-up efficiency at least 0.85: 1 of 1" in line
    assert "selection overhead at most 1 %: 1 of 1" in line
    assert "peak memory at most that of the full model: 0 of 1" in line
    assert "at most 1.02 of the full model's time: missed" in line
    shape = stored()
    # Shown as 1.00, so it counts as 1.00.
    shape["methods"]["fastv"]["peak_memory_over_bare"] = 1.004
    assert "that of the full model: 1 of 1" in written({**BASE, "prefill": [shape]})
    gpu = {**BASE, "machine": {"dtype": "torch.bfloat16"}, "prefill": [stored()]}
    assert "selection overhead at most 5 %" in written(gpu)
