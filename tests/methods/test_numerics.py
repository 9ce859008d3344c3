"""Every method on what makes scores tie, vanish, overflow or meet padding."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import foveate
from foveate.method import registered
from tests.families import zoo
from tests.methods.made import halved

every = pytest.mark.parametrize("slug", registered())
PICTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "of noise": lambda pixels: pixels,
    "of one colour": lambda pixels: torch.full_like(pixels, 0.3),
    "of zeros": torch.zeros_like,
}


def samples(change: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32):
    """Two samples of unlike length."""
    found = [zoo.sample("llava", "image", i) for i in (0, 1)]
    return [
        zoo.Sample(s.ids, s.types, {k: change(v).to(dtype) for k, v in s.inputs.items()}, s.items)
        for s in found
    ]


@every
@pytest.mark.parametrize("picture", PICTURES)
def test_a_padded_batch_is_its_samples_in_a_plain_forward(slug, picture):
    """Without position ids, where the model counts padding in front of a row."""
    model, method = zoo.model("llava"), halved(slug)
    rows, kept, last = samples(PICTURES[picture]), [], []
    with foveate.attach(model, method) as att, torch.no_grad():
        for row in rows:
            last.append(model(**zoo.batch("llava", [row])).logits[0, -1])
            kept += [k.tolist() for k in att.report.kept]
        both = model(**zoo.batch("llava", rows, padding=1)).logits[:, -1]
        assert [k.tolist() for k in att.report.kept] == kept
    assert torch.allclose(both, torch.stack(last), atol=1e-4)


@every
def test_a_row_of_padding_changes_no_other(slug):
    model, method = zoo.model("llava"), halved(slug)
    alone = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    both = dict(alone)
    for name in ("input_ids", "attention_mask"):
        both[name] = torch.cat([alone[name], torch.zeros_like(alone[name])])
    with foveate.attach(model, method) as att, torch.no_grad():
        expected, kept = model(**alone).logits[0, -1], att.report.kept[0].tolist()
        logits = model(**both).logits[0, -1]
        assert att.report.kept[0].tolist() == kept
    assert torch.allclose(logits, expected, atol=1e-4)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_numbers_give_numbers(slug, dtype):
    model, method = copy.deepcopy(zoo.model("llava")).to(dtype), halved(slug)
    for scale in (1, 200):
        batch = zoo.batch("llava", samples(lambda pixels, s=scale: pixels * s, dtype), padding=1)
        with foveate.attach(model, method) as att, torch.no_grad():
            logits = model(**batch).logits[:, -1]
            model.generate(**batch, max_new_tokens=2, do_sample=False)
        assert logits.isfinite().all() and len(att.report.kept) == 2


@every
def test_under_autocast(slug):
    model, method = zoo.model("llava"), halved(slug)
    batch = zoo.pair("llava", "image")
    with torch.autocast("cpu", dtype=torch.bfloat16), foveate.attach(model, method) as att:
        with torch.no_grad():
            assert model(**batch).logits.isfinite().all()
            model.generate(**batch, max_new_tokens=2, do_sample=False)
        assert len(att.report.kept) == 2
        labels = batch["input_ids"].masked_fill(batch["input_ids"] == zoo.IMAGE, -100)
        model(**batch, labels=labels).loss.backward()
    model.zero_grad()


@every
def test_a_coarse_default_dtype_is_refused(slug):
    model, batch = zoo.model("llava"), zoo.pair("llava", "image")
    torch.set_default_dtype(torch.bfloat16)
    try:
        with foveate.attach(model, halved(slug)):
            with pytest.raises(foveate.UnsupportedCall, match="set_default_dtype"):
                model(**batch)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        assert model(**batch).logits.isfinite().all()
