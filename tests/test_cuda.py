"""Every method on a GPU: what it does there is what it does on a CPU. Runs where there is one."""

import pytest
import torch

import foveate
from foveate.method import registered
from foveate.mini.evaluate import prompt
from foveate.ops.farthest import farthest_point
from tests.methods.made import made

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def models():
    """nano by place and type, and its processor."""
    made_of = {}
    for place, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
        model, processor = foveate.mini("nano")
        made_of[place, dtype] = model.to(place, getattr(torch, dtype))
    return made_of, processor


def said(model, processor, method):
    """New ids of two prompts of unlike lengths, and the report, by method."""
    items = foveate.mini.world.items("I1", "test", 2)
    asked = items[0].question, f"look and say: {items[1].question}"
    texts = [prompt(processor, text) for text in asked]
    inputs = processor(
        images=[item.image() for item in items], text=texts, padding=True, return_tensors="pt"
    ).to(model.device, model.dtype)
    with foveate.attach(model, method) as attachment:
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    return ids[:, inputs["input_ids"].shape[1] :].cpu(), attachment.report


def method(slug):
    """A method at a budget that six layers can hold."""
    return made(slug, **({"keep": 0.75} if registered()[slug].reduces else {}))


@pytest.mark.parametrize("slug", registered())
def test_a_method_does_on_a_gpu_what_it_does_on_a_cpu(models, slug):
    placed, processor = models
    ids, report = said(placed["cpu", "float32"], processor, method(slug))
    there, told = said(placed["cuda", "float32"], processor, method(slug))
    assert torch.equal(ids, there)
    assert told.tokens_out == report.tokens_out
    assert told.tokens_by_layer == report.tokens_by_layer
    assert told.seconds["prefill"] > 0


@pytest.mark.parametrize("slug", registered())
def test_a_method_runs_in_bfloat16(models, slug):
    placed, processor = models
    ids, report = said(placed["cuda", "bfloat16"], processor, method(slug))
    assert len(ids) == 2 and report.flops <= report.flops_full * 1.1


@pytest.mark.parametrize(("n", "k"), [(576, 64), (2880, 300)])
def test_a_captured_graph_chooses_what_the_loop_chooses(n, k):
    x = torch.randn(2, n, 256, generator=torch.Generator().manual_seed(0))
    assert torch.equal(farthest_point(x.cuda(), k).cpu(), farthest_point(x, k))
