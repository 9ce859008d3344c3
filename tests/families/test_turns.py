"""Calls one after another: second turns, no cache, other caches, loops by hand."""

from __future__ import annotations

import pytest
import torch

import foveate

from . import zoo
from .halves import Half, HalfAt
from .laws import dropped, once, stages
from .reference import Drop, Reference, everything
from .running import TOLERANCE, assert_equal, generate


@once
@stages
def test_a_second_turn_goes_on_where_the_first_ended(name, modality, method):
    """Cache handed back with a longer prompt: as if the answer and question had been decoded."""
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    inputs = zoo.batch(name, [sample])
    words = torch.tensor([zoo.words(50, 4)])
    with foveate.attach(model, method):
        first = generate(model, inputs, 4)
        longer = torch.cat([first.output.sequences, words], 1)
        second = generate(
            model,
            text_of(inputs, longer),
            5,
            past_key_values=first.output.past_key_values,
        )
    said = [*first.tokens[0].tolist(), *words[0].tolist()]
    reference = Reference(model, name, sample)
    expected = []
    for token in second.tokens[0].tolist():
        expected.append(reference.run(dropped(sample, method), said)[-1])
        said.append(token)
    assert (second.logits[0] - torch.stack(expected)).abs().max() < TOLERANCE


def text_of(inputs: dict, ids: torch.Tensor) -> dict:
    """Arguments of a second turn: all ids, what positions are made from, no pixels."""
    kept = {k: v for k, v in inputs.items() if k.endswith("_thw")}
    if "mm_token_type_ids" in inputs:
        types = inputs["mm_token_type_ids"]
        gap = types.new_zeros(len(types), ids.shape[1] - types.shape[1])
        kept["mm_token_type_ids"] = torch.cat([types, gap], 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **kept}


@once
@stages
def test_without_a_cache(name, modality, method):
    model = zoo.model(name)
    with foveate.attach(model, method):
        cached = generate(model, zoo.pair(name, modality), 4)
        plain = generate(model, zoo.pair(name, modality), 4, use_cache=False)
        single = zoo.batch(name, [zoo.sample(name, modality, 0)])
        alone = generate(model, single, 4, use_cache=False)
    for b in (0, 1):
        assert_equal(plain.row(b), cached.row(b))
    assert_equal(alone.row(0), cached.row(0))


def by_hand(model, inputs: dict, steps: int) -> tuple[list[int], torch.Tensor]:
    """Greedy decoding by plain forward calls, without the positions that `generate` passes."""
    logits, tokens = [], []
    with torch.no_grad():
        out = model(**inputs, use_cache=True)
        for _ in range(steps):
            logits.append(out.logits[0, -1])
            tokens.append(int(logits[-1].argmax()))
            step = torch.tensor([[tokens[-1]]])
            out = model(input_ids=step, past_key_values=out.past_key_values, use_cache=True)
    return tokens, torch.stack(logits)


@once
@stages
def test_forward_by_hand(name, modality, method):
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    with foveate.attach(model, method):
        tokens, logits = by_hand(model, zoo.batch(name, [sample]), 4)
    expected = Reference(model, name, sample).run(dropped(sample, method), tokens)[-5:-1]
    assert (logits - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("method", [Half(), HalfAt(k=2), HalfAt(keep=1.0)], ids=str)
def test_a_long_video_by_hand_goes_on_behind_its_last_frame(name, method):
    """By hand the bare model counts on from the largest position, in `generate` from the last."""
    model = zoo.model(name)
    inputs = {
        "pixel_values_videos": zoo.noise(1, 12 * 4, 3 * 2 * 14 * 14),
        "video_grid_thw": torch.tensor([[12, 2, 2]]),
    }
    ids = [zoo.START, *[zoo.VIDEO] * 12, zoo.END, *zoo.words(3, 3)]
    sample = zoo.Sample(ids, [2 * (x == zoo.VIDEO) for x in ids], inputs, (12,))
    reference = Reference(model, name, sample)
    assert reference.positions.max() > reference.positions[:, -1].max()
    drop = dropped(sample, method) if method.keep < 1 else Drop(everything(sample))
    with foveate.attach(model, method):
        run = generate(model, zoo.batch(name, [sample]), 4)
        assert_equal(run.row(0), reference.generate(drop, 4))
        tokens, logits = by_hand(model, zoo.batch(name, [sample]), 4)
    reference.next = reference.positions.max().expand(3, 1) + 1
    expected = reference.run(drop, tokens)[-5:-1]
    assert (logits - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    "name", ["llava", "qwen2_5_vl", "gemma3", "paligemma", "glm4v", "idefics3"]
)
@stages
def test_static_cache(name, method):
    model = zoo.model(name)
    with foveate.attach(model, method):
        dynamic = generate(model, zoo.pair(name, "image"), 5)
        static = generate(
            model, zoo.pair(name, "image"), 5, cache_implementation="static", disable_compile=True
        )
    for b in (0, 1):
        assert_equal(static.row(b), dynamic.row(b))


def test_talks_may_interleave():
    """Two prompts decoded in turn, each with its own cache."""
    model = zoo.model("qwen2_5_vl")
    samples = [zoo.sample("qwen2_5_vl", "image", i) for i in (0, 1)]
    with foveate.attach(model, Half(positions="packed") + HalfAt(k=2)), torch.no_grad():
        alone = [generate(model, zoo.batch("qwen2_5_vl", [s]), 4).tokens[0] for s in samples]
        talks = [model(**zoo.batch("qwen2_5_vl", [s]), use_cache=True) for s in samples]
        said: list[list[int]] = [[], []]
        deltas = [rope_delta(model, s) for s in samples]
        for _ in range(4):
            for i, talk in enumerate(talks):
                said[i].append(int(talk.logits[0, -1].argmax()))
                # The inner model remembers one talk's offset only, with or without foveate.
                model.model.rope_deltas = torch.tensor([[deltas[i]]])
                talks[i] = model(
                    input_ids=torch.tensor([[said[i][-1]]]),
                    past_key_values=talk.past_key_values,
                    use_cache=True,
                )
    assert said == [t.tolist() for t in alone]


def rope_delta(model, sample: zoo.Sample) -> int:
    """What the inner model adds to the length of a sample to count on behind it."""
    inputs = zoo.batch("qwen2_5_vl", [sample])
    del inputs["pixel_values"]
    return int(model.model.get_rope_index(**inputs)[1])
