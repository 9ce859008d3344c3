"""The measurement of caches runs, and its bytes are the report's."""

import torch
from transformers import Qwen2Config

from perf import cache
from perf.shapes import Shape

TINY = Shape(
    "tiny",
    Qwen2Config(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1000,
    ),
    tower_layers=1,
    visual=16,
    words=8,
)


def test_rows_and_page():
    result = cache.measure(1, "cpu", torch.float32, TINY)
    rows = result["rows"]
    assert rows["bare"]["of_float32"] == 1 and rows["bare"]["of_bfloat16"] == 2
    assert all(rows[name]["of_float32"] < 0.6 for name in ("bits", "bits of all", "evicting"))
    assert cache.page(result).count("\n| `") == len(rows)
