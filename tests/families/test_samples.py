"""What a prompt may hold and how often it is continued: texts, several items, beams."""

from __future__ import annotations

import pytest
import torch

import foveate

from . import zoo
from .halves import Half, HalfAt
from .laws import dropped, once, stages
from .reference import Drop, Reference, every_second, everything
from .running import TOLERANCE, assert_equal, assert_unequal, generate


@pytest.mark.parametrize("name", zoo.FAMILIES)
@stages
def test_text_alone_passes_through(name, method):
    """Also right behind a call with a picture, and in a row beside one."""
    model = zoo.model(name)
    text = zoo.text_sample(name)
    expected = generate(model, zoo.batch(name, [text]), 4)
    picture = zoo.sample(name, "image", 0)
    with foveate.attach(model, method):
        assert torch.equal(generate(model, zoo.batch(name, [text]), 4).logits, expected.logits)
        alone = generate(model, zoo.batch(name, [picture]), 4)
        assert torch.equal(generate(model, zoo.batch(name, [text]), 4).logits, expected.logits)
        if name in ("idefics3", "smolvlm"):
            return
        mixed = generate(model, zoo.batch(name, [picture, text]), 4)
    assert_equal(mixed.row(0), alone.row(0))
    assert_equal(mixed.row(1), expected.row(0))


@stages
def test_pictures_come_under_their_older_name_too(method):
    """What Video-LLaVA's image processor returns."""
    model = zoo.model("video_llava")
    inputs = zoo.batch("video_llava", [zoo.sample("video_llava", "image", 0)])
    older = {"pixel_values_images" if "pixel" in k else k: v for k, v in inputs.items()}
    with foveate.attach(model, method) as attached:
        assert_equal(generate(model, older, 4).row(0), generate(model, inputs, 4).row(0))
        with torch.no_grad():
            assert torch.equal(model(**older).logits, model(**inputs).logits)
        assert sum(attached.report.tokens_in) == 16


@pytest.mark.parametrize("name", zoo.FAMILIES)
@stages
def test_two_images_in_a_sample(name, method):
    """Each item is halved by itself; a boundary sees the row."""
    model = zoo.model(name)
    two = zoo.joined(name, zoo.sample(name, "image", 0), zoo.sample(name, "image", 1))
    one = zoo.sample(name, "image", 1)
    if name in ("idefics3", "smolvlm"):
        two = zoo.joined(name, zoo.sample(name, "image", 0), zoo.sample(name, "image", 0))
        one = zoo.sample(name, "image", 0)
    with foveate.attach(model, method):
        run = generate(model, zoo.batch(name, [two]), 4)
        batch = generate(model, zoo.batch(name, [two, one]), 4)
    expected = Reference(model, name, two).generate(dropped(two, method), 4)
    assert_equal(run.row(0), expected)
    assert_equal(batch.row(0), expected)


@pytest.mark.parametrize("name", [n for n in zoo.VIDEO_FAMILIES if n != "glm4v"])
@stages
def test_image_and_video_in_a_sample(name, method):
    model = zoo.model(name)
    two = zoo.joined(name, zoo.sample(name, "image", 0), zoo.sample(name, "video", 1))
    with foveate.attach(model, method):
        run = generate(model, zoo.batch(name, [two]), 4)
    assert_equal(run.row(0), Reference(model, name, two).generate(dropped(two, method), 4))
    with foveate.attach(model, Half(keep=1.0)):
        same = generate(model, zoo.batch(name, [two]), 4)
    whole = Reference(model, name, two).generate(Drop(everything(two)), 4)
    assert_equal(same.row(0), whole)


@pytest.mark.parametrize(
    ("name", "modality"), [case for case in zoo.CASES if case != ("glm4v", "video")]
)
@stages
def test_beams(name, modality, method):
    """Scores of the best beam are those of its tokens, and a batch gives what its samples give."""
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    how = {"num_beams": 2, "num_return_sequences": 2, "output_scores": True}
    with foveate.attach(model, method):
        beams = generate(model, zoo.batch(name, [sample]), 4, **how)
        batch = generate(model, zoo.pair(name, modality), 4, **how)
    reference = Reference(model, name, sample)
    for beam in (0, 1):
        tokens = beams.tokens[beam].tolist()
        logits = reference.run(dropped(sample, method), tokens)[-5:-1]
        score = logits.log_softmax(-1).gather(1, beams.tokens[beam][:, None]).sum() / len(tokens)
        assert abs(score - beams.output.sequences_scores[beam]) < TOLERANCE
    assert torch.equal(batch.tokens[:2], beams.tokens)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
@stages
def test_return_sequences_by_sampling(name, method):
    model = zoo.model(name)
    sample = zoo.sample(name, "image", 0)
    inputs = zoo.batch(name, [sample])
    with foveate.attach(model, method):
        torch.manual_seed(3)
        out = model.generate(
            **inputs,
            max_new_tokens=4,
            do_sample=True,
            num_return_sequences=3,
            return_dict_in_generate=True,
            output_logits=True,
        )
    rows = torch.stack(out.logits, 1)
    reference = Reference(model, name, sample)
    for row, tokens in zip(rows, out.sequences[:, -4:].tolist(), strict=True):
        expected = reference.run(dropped(sample, method), tokens)[-5:-1]
        assert (row - expected).abs().max() < TOLERANCE


@once
def test_stages_compose(name, modality):
    """Half before the decoder, half of that at a boundary."""
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    with foveate.attach(model, Half() + HalfAt(k=2)):
        run = generate(model, zoo.batch(name, [sample]), 4)
        batch = generate(model, zoo.pair(name, modality), 4)
    with foveate.attach(model, Half()):
        half = generate(model, zoo.batch(name, [sample]), 4)
    assert_equal(batch.row(0), run.row(0))
    assert_unequal(run.row(0), half.row(0))
    caches = [layer.keys.shape[2] for layer in run.output.past_key_values.layers]
    entered = len(every_second(sample))
    if name != "gemma3":  # its sliding layers hold a window
        text = len(sample.ids) - sum(sample.items)
        tokens = entered - text
        assert caches == [entered + 3] * 2 + [text + (tokens + 1) // 2 + 3] * 3
