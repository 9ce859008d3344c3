"""Ways to call a model beyond plain `generate`: each exact, or refused in one sentence."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, TextIteratorStreamer
from transformers.masking_utils import flash_attention_mask

import foveate
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.families.halves import Half, HalfAt

METHODS = [
    Half(),
    Half(positions="packed"),
    HalfAt(),
    HalfAt(positions="packed"),
    Half() + HalfAt(),
    HalfAt(k=0),
]
FAMILIES = ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "paligemma", "glm4v"]
both = pytest.mark.parametrize("method", METHODS, ids=repr)
some = pytest.mark.parametrize("name", FAMILIES)


@some
@both
def test_static_cache_equals_dynamic(name, method):
    model = zoo.model(name)
    _, batch = pair(name)
    with foveate.attach(model, method):
        assert close(generate(model, batch), generate(model, batch, cache_implementation="static"))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3"])
@both
def test_prompt_lookup_changes_nothing(name, method):
    model = zoo.model(name)
    (one, _), _ = pair(name)
    with foveate.attach(model, method):
        plain = generate(model, one, 10)[0]
        looked = generate(model, one, 10, prompt_lookup_num_tokens=2)[0]
    assert torch.equal(plain, looked)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "glm4v"])
@both
def test_assistant_model_changes_nothing(name, method):
    model = zoo.model(name)
    assistant = copy.deepcopy(model)
    (one, _), _ = pair(name)
    with foveate.attach(model, method):
        plain = generate(model, one, 10)[0]
        assisted = generate(model, one, 10, assistant_model=assistant)[0]
    assert torch.equal(plain, assisted)


READERS = [
    foveate.FastV(),
    foveate.PyramidDrop(),
    foveate.SparseVLM(keep=8),
    foveate.CATP(keep=0.5),
    foveate.VisionDrop(keep=0.5),
    foveate.TransPrune(keep=0.5),
    foveate.LVLMCSP(),
    foveate.TCLLaVA(),
    foveate.YOPO(),
    foveate.DyMU(keep=8),
    foveate.ZipVL(),
]


@pytest.mark.parametrize("name", ["llava", "gemma3", "paligemma"])
@pytest.mark.parametrize("method", READERS, ids=repr)
def test_candidates_are_no_part_of_the_question(name, method):
    """A draft that differs has most of its candidates taken back, of the first call too."""
    if name != "llava" and method not in READERS[:2]:
        return
    model = zoo.model(name)
    draft = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in (p for p in draft.parameters() if p.numel() > 1):
            weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=generator)
    one = zoo.batch(name, [zoo.sample(name, "image", 0)])
    with foveate.attach(model, method):
        plain = model.generate(**one, max_new_tokens=8, do_sample=False)
        for how in ({"assistant_model": draft}, {"prompt_lookup_num_tokens": 3}):
            assert torch.equal(
                model.generate(**one, max_new_tokens=8, do_sample=False, **how), plain
            )


def test_hidden_states_of_candidates_stand_behind_those_of_the_prompt():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    how = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    draft = copy.deepcopy(model)
    with foveate.attach(model, foveate.FastV()):
        plain = model.generate(**one, **how, output_hidden_states=True)
        helped = model.generate(**one, **how, assistant_model=draft, output_hidden_states=True)
        for step, expected in zip(helped.hidden_states[1:], plain.hidden_states[1:], strict=True):
            assert (step[-1] - expected[-1]).abs().max() < 2e-4
        with pytest.raises(foveate.UnsupportedCall, match="output_attentions"):
            model.set_attn_implementation("eager")
            try:
                model.generate(**one, **how, assistant_model=draft, output_attentions=True)
            finally:
                model.set_attn_implementation("sdpa")


def test_a_model_that_is_told_of_no_candidates_refuses_those_who_read_the_question():
    model = zoo.model("video_llama_3")
    (one, _), _ = pair("video_llama_3")
    draft = copy.deepcopy(model)
    with foveate.attach(model, foveate.FastV()):
        with pytest.raises(foveate.UnsupportedCall, match="does not know which tokens"):
            generate(model, one, 6, assistant_model=draft)
    with foveate.attach(model, foveate.DivPrune(keep=0.5)):
        plain = generate(model, one, 6)[0]
        assert torch.equal(generate(model, one, 6, assistant_model=draft)[0], plain)


@some
@both
def test_manual_loop_equals_generate(name, method):
    model = zoo.model(name)
    (one, _), _ = pair(name)
    one = {k: v for k, v in one.items() if k != "attention_mask"}
    with foveate.attach(model, method), torch.no_grad():
        tokens, logits = generate(model, one, 6)
        out = model(**one, use_cache=True)
        for step in range(6):
            assert (out.logits[:, -1] - logits[:, step]).abs().max() < 2e-4
            new = tokens[:, step : step + 1]
            out = model(input_ids=new, past_key_values=out.past_key_values, use_cache=True)


@some
@both
def test_interleaved_generations_do_not_meet(name, method):
    model = zoo.model(name)
    (first, second), _ = pair(name)
    with foveate.attach(model, method), torch.no_grad():
        first, second = (
            {k: v for k, v in x.items() if k != "attention_mask"} for x in (first, second)
        )
        alone = [generate(model, x, 4)[0] for x in (first, second)]
        outs, deltas = [], []
        for x in (first, second):
            outs.append(model(**x, use_cache=True))
            deltas.append(getattr(model.model, "rope_deltas", None))
        model(**zoo.batch(name, [zoo.text_sample(name)]), use_cache=True)
        tokens = [[int(o.logits[0, -1].argmax())] for o in outs]
        for _ in range(3):
            for i in (0, 1):
                if deltas[i] is not None:
                    # These models keep the offset of their last picture on themselves.
                    model.model.rope_deltas = deltas[i]
                new = torch.tensor([tokens[i][-1:]])
                outs[i] = model(input_ids=new, past_key_values=outs[i].past_key_values)
                tokens[i].append(int(outs[i].logits[0, -1].argmax()))
    assert [[t] for t in tokens] == [a.tolist() for a in alone]


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "video_llama_3"])
@both
def test_masks_in_the_flash_format(name, method):
    """A kernel that takes padding as (B, K) masks, as FlashAttention does."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def flat(module, query, key, value, attention_mask=None, **kwargs):
        q, k = query.shape[2], key.shape[2]
        steps = torch.arange(k)
        mask = (steps[None] <= steps[k - q :, None])[None, None]
        if attention_mask is not None:
            assert attention_mask.dim() == 2
            own = torch.eye(k, dtype=torch.bool)[k - q :]
            mask = mask & attention_mask[:, None, None, :].bool() | own
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    AttentionInterface.register("flat_flash", flat)
    AttentionMaskInterface.register("flat_flash", flash_attention_mask)
    model = zoo.model(name)
    _, batch = pair(name)
    with foveate.attach(model, method):
        expected = generate(model, batch)
        model.set_attn_implementation({"text_config": "flat_flash"})
        try:
            got = generate(model, batch)
        finally:
            model.set_attn_implementation("sdpa")
    assert close(expected, got)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "idefics3"])
@both
def test_batch_with_a_row_of_text(name, method):
    model = zoo.model(name)
    picture, text = zoo.sample(name, "image", 0), zoo.text_sample(name)
    with foveate.attach(model, method):
        got = generate(model, zoo.batch(name, [picture, text]))
        for i, s in enumerate((picture, text)):
            alone = generate(model, zoo.batch(name, [s]))
            assert close((got[0][i : i + 1], got[1][i : i + 1]), alone)


@both
def test_right_padding_in_a_forward_call(method):
    model = zoo.model("llava")
    alone, batch = pair("llava")
    flipped = dict(batch)
    for i, one in enumerate(alone):
        n = one["input_ids"].shape[1]
        for key in ("input_ids", "attention_mask"):
            flipped[key] = flipped[key].clone()
            flipped[key][i] = 0
            flipped[key][i, :n] = one[key][0]
    with foveate.attach(model, method), torch.no_grad():
        got = model(**flipped).logits
        for i, one in enumerate(alone):
            expected = model(**one).logits
            assert (got[i, : expected.shape[1]] - expected[0]).abs().max() < 2e-4


@both
def test_deep_copied_cache_goes_on_alone(method):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, method):
        out = model.generate(**one, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
        twin = copy.deepcopy(out.past_key_values)
        more = torch.cat([out.sequences, torch.tensor([[7, 8, 9]])], 1)
        a = model.generate(
            input_ids=more, past_key_values=out.past_key_values, max_new_tokens=5, do_sample=False
        )
        b = model.generate(input_ids=more, past_key_values=twin, max_new_tokens=5, do_sample=False)
    assert torch.equal(a, b)


@both
def test_streamer_sees_every_token(method):
    class Words:
        def decode(self, ids, **_):
            return "".join(f"{i} " for i in ids)

    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, method):
        expected = model.generate(**one, max_new_tokens=6, do_sample=False)[0]
        streamer = TextIteratorStreamer(Words(), skip_prompt=True)
        options = dict(one, max_new_tokens=6, do_sample=False, streamer=streamer)
        thread = threading.Thread(target=model.generate, kwargs=options)
        thread.start()
        got = "".join(streamer).split()
        thread.join()
    assert got == [str(i) for i in expected[-6:].tolist()]


@both
def test_inference_mode_and_other_pixels(method):
    model = zoo.model("llava")
    (one, other), _ = pair("llava")
    with foveate.attach(model, method), torch.inference_mode():
        first = generate(model, one)
        again = generate(model, one)
        changed = generate(model, {**one, "pixel_values": other["pixel_values"]})
    assert close(first, again) and not close(first, changed)
