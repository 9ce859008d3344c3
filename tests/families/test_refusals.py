"""What can not be answered exactly is refused in words that help."""

from __future__ import annotations

import pytest
import torch

import foveate
from foveate.errors import AlreadyAttached, UnsupportedCall

from . import zoo
from .halves import Half, HalfAt
from .laws import stages
from .running import bare, generate


def test_glm4v_refuses_image_and_video_in_a_sample():
    model = zoo.model("glm4v")
    two = zoo.joined("glm4v", zoo.sample("glm4v", "image", 0), zoo.sample("glm4v", "video", 1))
    with foveate.attach(model, Half()), pytest.raises(UnsupportedCall, match="one frame"):
        model(**zoo.batch("glm4v", [two]))


@stages
def test_glm4v_refuses_beams_over_a_video(method):
    inputs = zoo.batch("glm4v", [zoo.sample("glm4v", "video", 0)])
    model = zoo.model("glm4v")
    with foveate.attach(model, method), pytest.raises(UnsupportedCall, match="num_beams"):
        generate(model, inputs, 2, num_beams=2)


@stages
def test_prefill_in_chunks_is_refused(method):
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, method), pytest.raises(UnsupportedCall, match="prefill_chunk_size"):
        generate(model, inputs, 2, prefill_chunk_size=8)


@stages
def test_given_embeddings_are_refused(method):
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    with foveate.attach(model, method), pytest.raises(UnsupportedCall, match="input_ids"):
        model(
            inputs_embeds=embeddings,
            pixel_values=inputs["pixel_values"],
            attention_mask=inputs["attention_mask"],
        )


@stages
def test_a_new_picture_behind_a_cache_is_refused(method):
    model = zoo.model("llava")
    sample = zoo.sample("llava", "image", 0)
    with foveate.attach(model, method):
        first = generate(model, zoo.batch("llava", [sample]), 2)
        again = zoo.batch("llava", [sample])
        longer = torch.cat([first.output.sequences, again["input_ids"]], 1)
        with pytest.raises(UnsupportedCall, match="fresh call"):
            generate(
                model,
                {
                    "input_ids": longer,
                    "attention_mask": torch.ones_like(longer),
                    "pixel_values": again["pixel_values"],
                },
                2,
                past_key_values=first.output.past_key_values,
            )


def test_dropping_by_the_model_itself_is_refused():
    model = zoo.model("video_llama_3")
    sample = zoo.sample("video_llama_3", "video", 0)
    inputs = zoo.batch("video_llama_3", [sample])
    whole = torch.ones(sum(sample.items), dtype=torch.bool)
    holed = whole.clone()
    holed[0] = False
    ids = inputs["input_ids"]
    first = int((ids[0] == zoo.VIDEO).nonzero()[0, 0])
    shorter = {
        **inputs,
        **{
            k: torch.cat([inputs[k][:, :first], inputs[k][:, first + 1 :]], 1)
            for k in ("input_ids", "attention_mask")
        },
    }
    with foveate.attach(model, Half()):
        plain = generate(model, inputs, 2)
        masked = generate(model, inputs, 2, video_compression_mask=whole)
        assert torch.equal(masked.logits, plain.logits)
        with pytest.raises(UnsupportedCall, match="use_token_compression"):
            generate(model, shorter, 2, video_compression_mask=holed)


def test_one_method_at_a_time():
    model = zoo.model("llava")
    before = bare("llava", "image", "sdpa", 0)
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, Half()) as attachment:
        with pytest.raises(AlreadyAttached, match="detach"):
            foveate.attach(model, HalfAt())
        half = generate(model, inputs, 3)
        attachment.detach()
        attachment.detach()
    assert torch.equal(generate(model, inputs).logits, before.logits)
    with foveate.attach(model, Half()):
        assert torch.equal(generate(model, inputs, 3).logits, half.logits)
