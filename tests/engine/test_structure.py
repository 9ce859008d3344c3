"""Several samples in a row, and masks of the caller's own: as bare models answer, or refused."""

from __future__ import annotations

import pytest
import torch

import foveate
from foveate.errors import UnsupportedCall
from tests.engine.running import close, generate
from tests.families import zoo
from tests.families.halves import Half, HalfAt

METHODS = [
    Half(),
    HalfAt(),
    foveate.FastV(keep=1.0),
    foveate.VistaLLaMA(),
    foveate.VisionZip(keep=0.5),
    foveate.ZipVL(),
]
every = pytest.mark.parametrize("method", METHODS, ids=repr)


def packed(name: str):
    """Two samples in one row, positions of the second one starting anew."""
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    row = zoo.batch(name, [zoo.joined(name, *samples)])
    del row["attention_mask"]
    counts = torch.cat([torch.arange(len(s.ids)) for s in samples])
    return {**row, "position_ids": counts[None]}, [len(s.ids) for s in samples]


@every
@pytest.mark.parametrize("name", ["llava", "internvl", "qwen3_vl"])
def test_packed_rows_are_refused(name, method):
    model = zoo.model(name)
    inputs, lengths = packed(name)
    if name == "qwen3_vl":
        inputs["position_ids"] = inputs["position_ids"].expand(4, 1, -1)
    with foveate.attach(model, method):
        with pytest.raises(UnsupportedCall, match="its own row"):
            model(**inputs, use_cache=False)
        bounds = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32)
        ends = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        with pytest.raises(UnsupportedCall, match="cu_seq_lens"):
            model(**inputs, use_cache=False, **ends)


@pytest.mark.parametrize("method", [foveate.DivPrune(keep=1.0), foveate.Uniform(keep=1.0)])
def test_packed_rows_that_keep_all_are_kept_apart(method):
    model = zoo.model("llava")
    inputs, _ = packed("llava")
    with torch.no_grad():
        bare = model(**inputs, use_cache=False).logits
        with foveate.attach(model, method):
            assert torch.equal(model(**inputs, use_cache=False).logits, bare)


def test_packed_text_is_the_bare_models_affair():
    model = zoo.model("llava")
    ids = torch.tensor([zoo.text_sample("llava", 0).ids * 2])
    inputs = {"input_ids": ids, "position_ids": torch.arange(ids.shape[1] // 2).repeat(2)[None]}
    with torch.no_grad():
        bare = model(**inputs, use_cache=False).logits
        with foveate.attach(model, Half() + HalfAt()):
            assert torch.equal(model(**inputs, use_cache=False).logits, bare)


def shaped(form: str, seen: torch.Tensor):
    """A mask of what is seen (B, 1, L, L) in a form that models take."""
    if form == "bool":
        return seen
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return {"full_attention": mask} if form == "dict" else mask


@every
@pytest.mark.parametrize("form", ["bool", "float"])
def test_masks_of_the_callers_own(form, method):
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)])
    padding = inputs.pop("attention_mask").bool()
    n = padding.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool).tril() & padding[:, None, None]
    causal = causal | torch.eye(n, dtype=torch.bool)
    blocks = causal.clone()
    blocks[..., n // 2 :, : n // 2] = False
    positions = (padding.long().cumsum(1) - 1).clamp(min=0)
    with foveate.attach(model, method), torch.no_grad():
        right = model(**inputs, attention_mask=padding.long(), position_ids=positions).logits
        mask = shaped(form, causal)
        got = model(**inputs, attention_mask=mask, position_ids=positions).logits
        assert (got[:, -1] - right[:, -1]).abs().max() < 2e-4
        with pytest.raises(UnsupportedCall, match="A custom attention_mask"):
            model(**inputs, attention_mask=shaped(form, blocks))
        with pytest.raises(UnsupportedCall, match="A custom attention_mask"):
            model(**inputs, attention_mask=shaped("float", causal) - 0.5)


@pytest.mark.parametrize("name", ["gemma3", "qwen2_5_vl"])
def test_masks_by_kind_of_layer(name):
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", 0)])
    n = inputs.pop("attention_mask").shape[1]
    seen = torch.ones(1, 1, n, n, dtype=torch.bool).tril()
    seen[..., -1, 0] = False
    with foveate.attach(model, Half()), pytest.raises(UnsupportedCall, match="2-D mask"):
        model(**inputs, attention_mask={"full_attention": seen, "sliding_attention": seen})


@pytest.mark.parametrize("method", [Half(), HalfAt()], ids=repr)
def test_a_mask_of_the_callers_own_behind_a_prompt(method):
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    n = inputs["input_ids"].shape[1]
    mask = torch.ones(1, 1, 2, n + 2, dtype=torch.bool)
    with foveate.attach(model, method), torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        with pytest.raises(UnsupportedCall, match="2-D mask"):
            new = torch.tensor([[7, 8]])
            model(input_ids=new, past_key_values=cache, attention_mask=mask)


@pytest.mark.parametrize("name", ["llava", "gemma3", "paligemma"])
def test_masks_that_generate_made(name):
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", i) for i in (0, 1)])
    with foveate.attach(model, Half() + HalfAt()):
        static = generate(model, inputs, 3, cache_implementation="static")
        assert close(static, generate(model, inputs, 3))
