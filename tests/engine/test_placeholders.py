"""Placeholders and features that don't belong together are refused; beams do repeat features."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

import foveate
from foveate.errors import UnsupportedCall
from tests.engine.running import close, generate
from tests.families import zoo
from tests.families.halves import Half, HalfAt

methods = pytest.mark.parametrize("method", [Half(), HalfAt(), foveate.Uniform(keep=1.0)], ids=repr)


def calls(model, inputs):
    yield lambda: model(**inputs)
    yield lambda: model.generate(**inputs, max_new_tokens=2)
    yield lambda: model.generate(**inputs, max_new_tokens=2, num_beams=2)


@methods
@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_5_vl"])
def test_fewer_pictures_than_prompts_are_refused(name, method):
    model = zoo.model(name)
    four = zoo.batch(name, [zoo.sample(name, "image", 0)] * 4)
    two = zoo.batch(name, [zoo.sample(name, "image", 0)] * 2)
    few = {**two, **{k: four[k] for k in four if k.endswith("ids") or k == "attention_mask"}}
    with foveate.attach(model, method):
        # Some families count positions before they run, and raise an error of their own there.
        first = name in zoo.MROPE_FAMILIES
        for call in islice(calls(model, few), 1 if first else None):
            with pytest.raises(UnsupportedCall, match="same processor call"):
                call()


@pytest.mark.parametrize(
    "method",
    [Half(), HalfAt(), foveate.Uniform(keep=1.0), foveate.TCLLaVA()],
    ids=repr,
)
def test_placeholders_without_a_picture_are_refused(method):
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    del inputs["pixel_values"]
    with foveate.attach(model, method), torch.no_grad():
        with pytest.raises(UnsupportedCall, match="placeholders and no pixels"):
            model(**inputs)
        with pytest.raises(UnsupportedCall, match="placeholders and no pixels"):
            model.generate(**inputs, max_new_tokens=2)


@methods
def test_a_picture_without_placeholders_is_refused(method):
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == zoo.IMAGE, 20)
    with foveate.attach(model, method):
        for call in islice(calls(model, inputs), 2):
            with pytest.raises(UnsupportedCall, match="0 image placeholders, but .* 16"):
                call()


@pytest.mark.parametrize("name", ["llava", "paligemma", "fast_vlm", "video_llava", "qwen2_5_vl"])
def test_smaller_pictures_can_be_repeated(name):
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", 0)])
    with foveate.attach(model, foveate.Downsample(keep=0.5)):
        alone, *_ = generate(model, inputs, 4, num_beams=2)
        torch.manual_seed(0)
        twice, *_ = generate(model, inputs, 4, num_beams=2, num_return_sequences=2)
    assert torch.equal(alone, twice[:1])


def test_features_of_one_method_are_not_those_of_another():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    pixels = inputs.pop("pixel_values")
    with foveate.attach(model, foveate.Uniform(keep=0.5)), torch.no_grad():
        made = model.get_image_features(pixels)
        few = model(**inputs, mm_encoder_outputs={"image": made}).logits
    with foveate.attach(model, foveate.DivPrune(keep=0.5)), torch.no_grad():
        expected = model(**inputs, pixel_values=pixels).logits
        got = model(**inputs, mm_encoder_outputs={"image": made}).logits
    assert torch.equal(got, expected) and not torch.equal(got, few)
    with foveate.attach(model, foveate.FasterVLM(keep=0.5)):
        with pytest.raises(UnsupportedCall, match="encode them again"):
            model(**inputs, mm_encoder_outputs={"image": made})


def test_features_as_a_tuple_are_those_of_the_bare_model():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    bare = model.get_image_features(inputs["pixel_values"], return_dict=False)
    with foveate.attach(model, Half()):
        got = model.get_image_features(inputs["pixel_values"], return_dict=False)
        assert close(generate(model, inputs, 2), generate(model, inputs, 2))
    assert isinstance(got, tuple) and len(got) == len(bare)
    assert torch.equal(got[0], bare[0])
