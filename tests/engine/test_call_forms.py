"""Forms of one call: each answers as the plain keyword call does, under every kind of method."""

from __future__ import annotations

import copy
import io
import threading
from contextlib import redirect_stdout
from inspect import signature

import pytest
import torch
import transformers as hf

import foveate
from foveate.assets import PHOTOGRAPH
from tests.engine.running import generate
from tests.families import zoo

METHODS = [
    foveate.VisionZip(keep=8),
    foveate.DivPrune(keep=1.0),
    foveate.FastV(k=2, keep=0.5),
    foveate.PyramidDrop(),
    foveate.ZipVL(),
    foveate.TCLLaVA(),
]
LATER = ["internvl", "smolvlm", "paligemma", "llava_next"]
FAMILIES = ["llava", "qwen2_5_vl", *(pytest.param(n, marks=pytest.mark.slow) for n in LATER)]
STEPS = 4


def prompt(name: str):
    return zoo.batch(name, [zoo.sample(name, "image", 0)])


def answer(model, inputs, **how):
    how = {"max_new_tokens": STEPS, "do_sample": False, **how}
    out = model.generate(**inputs, **how)
    return (out if isinstance(out, torch.Tensor) else out.sequences)[:, -STEPS:]


# -- forward


def positional(model, inputs):
    names = list(signature(model.forward).parameters)
    last = max(names.index(name) for name in inputs)
    return model(*(inputs.get(name) for name in names[: last + 1])).logits


def with_hidden_states(model, inputs):
    out = model(**inputs, output_hidden_states=True)
    assert len(out.hidden_states) == zoo.TEXT["num_hidden_layers"] + 1
    return out.logits


def with_attentions(model, inputs):
    model.set_attn_implementation("eager")
    try:
        out = model(**inputs, output_attentions=True)
    finally:
        model.set_attn_implementation("sdpa")
    assert len(out.attentions) == zoo.TEXT["num_hidden_layers"]
    return out.logits


def in_training_mode(model, inputs):
    model.train()
    try:
        return model(**inputs).logits
    finally:
        model.eval()


def inferring(model, inputs):
    with torch.inference_mode():
        return model(**inputs).logits.clone()


FORWARDS = {
    "positional": positional,
    "return_dict=False": lambda m, x: m(**x, return_dict=False)[0],
    "output_hidden_states": with_hidden_states,
    "output_attentions": with_attentions,
    "use_cache=False": lambda m, x: m(**x, use_cache=False).logits,
    "inference_mode": inferring,
    "train": in_training_mode,
}
LAST = {
    "logits_to_keep=1": lambda m, x: m(**x, logits_to_keep=1).logits,
    "logits_to_keep=[-1]": lambda m, x: m(**x, logits_to_keep=torch.tensor([-1])).logits,
}


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("name", FAMILIES)
def test_forward(name, method):
    model, inputs = zoo.model(name), prompt(name)
    with foveate.attach(model, method), torch.no_grad():
        plain = model(**inputs).logits
        for form, call in FORWARDS.items():
            assert (call(model, inputs) - plain).abs().max() < 2e-4, form
        for form, call in LAST.items():
            assert (call(model, inputs) - plain[:, -1:]).abs().max() < 2e-4, form


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_cache_is_continued_by_hand(name, method):
    model = zoo.model(name)
    inputs = {k: v for k, v in prompt(name).items() if k != "attention_mask"}
    more = torch.tensor([[5, 6, 7]])
    with foveate.attach(model, method), torch.no_grad():
        out = model(**inputs)
        for i in range(3):
            out = model(more[:, i : i + 1], past_key_values=out.past_key_values)
        as_tuple = model(**inputs, return_dict=False)
        cache = next(x for x in as_tuple if isinstance(x, hf.Cache))
        at_once = model(input_ids=more, past_key_values=cache).logits
    assert (at_once[:, -1:] - out.logits).abs().max() < 2e-4


# -- generate


class Words:
    def decode(self, ids, **_):
        return "".join(f"{int(i)} " for i in ids)


def numbers(text: str):
    return torch.tensor([[int(word) for word in text.split()]])


def streamed(model, inputs):
    with redirect_stdout(io.StringIO()) as out:
        answer(model, inputs, streamer=hf.TextStreamer(Words(), skip_prompt=True))
    return numbers(out.getvalue())


def streamed_to_another_thread(model, inputs):
    streamer = hf.TextIteratorStreamer(Words(), skip_prompt=True)
    thread = threading.Thread(target=answer, args=(model, inputs), kwargs={"streamer": streamer})
    thread.start()
    text = "".join(streamer)
    thread.join()
    return numbers(text)


class At(hf.StoppingCriteria):
    def __init__(self, length: int):
        self.length = length

    def __call__(self, ids, scores, **_):
        return torch.full((len(ids),), ids.shape[1] >= self.length)


class Seen(hf.LogitsProcessor):
    def __call__(self, ids, scores):
        self.length = ids.shape[1]
        return scores


def stopped(model, inputs):
    stop = hf.StoppingCriteriaList([At(inputs["input_ids"].shape[1] + STEPS)])
    return answer(model, inputs, max_new_tokens=20, stopping_criteria=stop)


def processed(model, inputs):
    seen = Seen()
    out = answer(model, inputs, logits_processor=hf.LogitsProcessorList([seen]))
    assert seen.length == inputs["input_ids"].shape[1] + STEPS - 1
    return out


def configured(model, inputs):
    config = copy.deepcopy(model.generation_config)
    config.max_new_tokens, config.do_sample = STEPS, False
    return model.generate(**inputs, generation_config=config)[:, -STEPS:]


def of_some_length(model, inputs):
    length = inputs["input_ids"].shape[1] + STEPS
    return model.generate(**inputs, do_sample=False, max_length=length)[:, -STEPS:]


def by_position(model, inputs):
    rest = {k: v for k, v in inputs.items() if k != "input_ids"}
    return model.generate(inputs["input_ids"], **rest, max_new_tokens=STEPS, do_sample=False)[
        :, -STEPS:
    ]


def own_loop(model, inputs):
    def loop(model, input_ids, **how):
        return type(model)._sample(model, input_ids, **how)

    return answer(model, inputs, custom_generate=loop)


GENERATES = {
    "streamer": streamed,
    "streamer and thread": streamed_to_another_thread,
    "stopping_criteria": stopped,
    "logits_processor": processed,
    "generation_config": configured,
    "max_length": of_some_length,
    "inputs": by_position,
    "custom_generate": own_loop,
    "no mask": lambda m, x: answer(m, {k: v for k, v in x.items() if k != "attention_mask"}),
    "a cache of one's own": lambda m, x: answer(m, x, past_key_values=hf.DynamicCache()),
    "use_cache=False": lambda m, x: answer(m, x, use_cache=False),
    "everything": lambda m, x: answer(
        m,
        x,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_hidden_states=True,
    ),
}


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("name", FAMILIES)
def test_generate(name, method):
    model, inputs = zoo.model(name), prompt(name)
    with foveate.attach(model, method):
        plain = answer(model, inputs)
        for form, call in GENERATES.items():
            assert torch.equal(call(model, inputs), plain), form
        with pytest.raises(foveate.UnsupportedCall, match="prefill_chunk_size"):
            answer(model, inputs, prefill_chunk_size=8)
        if method != foveate.ZipVL():
            assert torch.equal(answer(model, inputs, cache_implementation="static"), plain)
        else:
            with pytest.raises(foveate.UnsupportedCall, match="StaticCache"):
                answer(model, inputs, cache_implementation="static")


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_samples_of_one_prompt_are_those_of_copies_of_it(method):
    model, inputs = zoo.model("llava"), prompt("llava")
    copies = {name: torch.cat([value] * 3) for name, value in inputs.items()}
    with foveate.attach(model, method):
        torch.manual_seed(3)
        returned = answer(model, inputs, do_sample=True, num_return_sequences=3)
        torch.manual_seed(3)
        assert torch.equal(answer(model, copies, do_sample=True), returned)


@pytest.mark.parametrize("how", [{"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 3}])
@pytest.mark.parametrize("name", ["llava"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_beams_without_a_cache_are_those_with_one(method, name, how):
    model, inputs = zoo.model(name), prompt(name)
    with foveate.attach(model, method):
        cached = answer(model, inputs, **how)
        assert torch.equal(answer(model, inputs, use_cache=False, **how), cached)


def test_without_a_cache_none_is_left():
    model, inputs = zoo.model("llava"), prompt("llava")
    with foveate.attach(model, foveate.FastV(k=2, keep=0.5)):
        expected = generate(model, inputs, STEPS)
        out = model.generate(
            **inputs,
            max_new_tokens=STEPS,
            do_sample=False,
            use_cache=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        assert out.past_key_values is None
        assert (torch.stack(out.logits, 1) - expected[1]).abs().max() < 2e-4


@pytest.mark.slow
def test_a_model_that_torch_compile_wraps():
    model, inputs = copy.deepcopy(zoo.model("llava")), prompt("llava")
    wrapped = torch.compile(model, backend="eager")
    for method in (foveate.DivPrune(keep=8), foveate.DivPrune(keep=1.0)):
        with torch.no_grad(), foveate.attach(model, method):
            plain = model(**inputs).logits
        with torch.no_grad(), foveate.attach(wrapped, method):
            assert (wrapped(**inputs).logits - plain).abs().max() < 2e-4


def test_a_pipeline_answers_as_generate_does():
    model, processor = foveate.mini("image")
    pipe = hf.pipeline(
        "image-text-to-text",
        model=model,
        processor=processor,
        tokenizer=processor.tokenizer,
        image_processor=processor.image_processor,
    )
    chat = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": str(PHOTOGRAPH)},
                {"type": "text", "text": "what colour is it ?"},
            ],
        }
    ]
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
    inputs = processor.apply_chat_template(chat, return_tensors="pt", **how)

    def through() -> str:
        return pipe(text=chat, max_new_tokens=4)[0]["generated_text"][-1]["content"]

    def plain() -> str:
        out = model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
        return processor.decode(out, skip_special_tokens=True)

    bare = through()
    with foveate.attach(model, foveate.DivPrune(keep=1.0)):
        assert through() == bare
    for method in (foveate.DivPrune(keep=8), foveate.FastV(keep=0.5)):
        with foveate.attach(model, method) as attachment:
            answered = through()
            assert attachment.report.tokens_out[0] < 196
            assert answered.split() == plain().split()
