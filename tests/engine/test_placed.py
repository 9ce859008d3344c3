"""Models whose modules accelerate hosts: outputs are rebuilt, weights come when a module runs."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model

import foveate
from tests.engine.running import generate
from tests.families import zoo
from tests.families.halves import Half, HalfAt


def answers(model, inputs, method, **options):
    with foveate.attach(model, method), torch.no_grad():
        return (model(**inputs).logits, *generate(model, inputs, 3, **options))


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3"])
@pytest.mark.parametrize("beams", [1, 2])
def test_a_dispatched_model_answers_as_it_does_in_one_piece(name, beams):
    model = copy.deepcopy(zoo.model(name))
    inputs = zoo.batch(name, [zoo.sample(name, "image", i) for i in (0, 1)])
    methods = [Half(), HalfAt(k=0), foveate.FastV(keep=1.0)]
    expected = [answers(model, inputs, m, num_beams=beams) for m in methods]
    dispatch_model(model, {"": "cpu"}, force_hooks=True)
    for method, right in zip(methods, expected, strict=True):
        assert same(answers(model, inputs, method, num_beams=beams), right)


@pytest.mark.parametrize(
    "method",
    [
        foveate.YOPO(),
        foveate.Downsample(keep=0.5),
        foveate.FastV(),
        foveate.ToMe(keep=0.5),
        foveate.FasterVLM(keep=0.5),
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_off_loaded_weights_are_read_where_they_are(method, place, tmp_path):
    model = copy.deepcopy(zoo.model("llava"))
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)])
    expected = answers(model, inputs, method)
    if place == "cpu":
        cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    assert same(answers(model, inputs, method), expected)
