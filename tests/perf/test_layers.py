import json

import pytest
import torch
from transformers import Qwen2Config

from perf import layers
from perf.shapes import Shape

TINY = Shape(
    "tiny",
    Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1100,
    ),
    tower_layers=2,
    visual=16,
    words=8,
)


@pytest.mark.slow
def test_every_method_gets_a_row(monkeypatch):
    monkeypatch.setattr(layers, "PICTURES", {1: 1.0, 2: 1.0})
    written = list(layers.measure(1, "cpu", torch.float32, TINY))
    result = written[-1]
    assert len(written) == 2
    assert [size["visual_tokens"] for size in result["sizes"]] == [16, 32]
    for size in result["sizes"]:
        assert size["methods"].keys() == layers.methods().keys() >= {"fastv", "pyramiddrop"}
        for row in size["methods"].values():
            assert row["theoretical_speedup"] > 0 and row["seconds"]["prefill"] > 0
    assert result["sizes"][0]["methods"]["fastv"]["kv_bytes_over_bare"] < 1
    assert result["sizes"][0]["methods"]["fastv"]["vs_short_prompt"] > 0
    assert result["sizes"][0]["methods"]["yopo"]["vs_short_prompt"] is None
    page = layers.page(result)
    assert page.count("`FastV()`") == 2 and page.splitlines()[-1].startswith(
        f"| {[*layers.methods()][-1]} |"
    )


def test_some_methods_are_measured_anew_among_the_others(tmp_path):
    def size(**rows):
        return {"visual_tokens": 16, "methods": rows}

    path = tmp_path / "layers.json"
    path.write_text(json.dumps({"names": {"a": "A()", "c": "C()"}, "sizes": [size(a=1, c=2)]}))
    now = {"names": {"b": "B()", "c": "C(2)"}, "sizes": [size(b=3, c=4)]}
    (result,) = layers.renewed(path, ["b", "c"], lambda only: [now])
    assert result["names"] == {"a": "A()", "b": "B()", "c": "C(2)"}
    assert result["sizes"] == [size(a=1, b=3, c=4)]
    assert [*layers.renewed(path, None, lambda only: [only])] == [None]
