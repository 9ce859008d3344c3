"""The kinds of calls that an attached model must answer exactly, or refuse in words."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import foveate
from foveate.errors import AlreadyAttached, UnsupportedCall

from . import zoo
from .halves import Half, HalfAt
from .reference import Drop, Reference, every_second, everything
from .running import TOLERANCE, assert_equal, assert_unequal, bare, generate

once = pytest.mark.parametrize(("name", "modality"), zoo.CASES)
stages = pytest.mark.parametrize("method", [Half(), Half(positions="packed"), HalfAt(k=2)], ids=str)


def dropped(sample: zoo.Sample, method) -> Drop:
    """What a test method does to a sample."""
    if isinstance(method, HalfAt):
        return Drop(every_second(sample, per_item=False), k=method.k)
    return Drop(every_second(sample), packed=method.positions == "packed")


def both(name: str, modality: str) -> dict:
    return zoo.batch(name, [zoo.sample(name, modality, i) for i in (0, 1)], padding=1)


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
            _text_of(inputs, longer),
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


def _text_of(inputs: dict, ids: torch.Tensor) -> dict:
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
        cached = generate(model, both(name, modality), 4)
        plain = generate(model, both(name, modality), 4, use_cache=False)
        single = zoo.batch(name, [zoo.sample(name, modality, 0)])
        alone = generate(model, single, 4, use_cache=False)
    for b in (0, 1):
        assert_equal(plain.row(b), cached.row(b))
    assert_equal(alone.row(0), cached.row(0))


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
def test_glm4v_refuses_beams_over_a_video(method):
    inputs = zoo.batch("glm4v", [zoo.sample("glm4v", "video", 0)])
    model = zoo.model("glm4v")
    with foveate.attach(model, method), pytest.raises(UnsupportedCall, match="num_beams"):
        generate(model, inputs, 2, num_beams=2)


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
        batch = generate(model, both(name, modality), 4, **how)
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
    inputs = zoo.batch(name, [zoo.sample(name, "image", 0)])
    rows = []
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
    sample = zoo.sample(name, "image", 0)
    reference = Reference(model, name, sample)
    for row, tokens in zip(rows, out.sequences[:, -4:].tolist(), strict=True):
        expected = reference.run(dropped(sample, method), tokens)[-5:-1]
        assert (row - expected).abs().max() < TOLERANCE


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


def test_glm4v_refuses_image_and_video_in_a_sample():
    model = zoo.model("glm4v")
    two = zoo.joined("glm4v", zoo.sample("glm4v", "image", 0), zoo.sample("glm4v", "video", 1))
    with foveate.attach(model, Half()), pytest.raises(UnsupportedCall, match="one frame"):
        model(**zoo.batch("glm4v", [two]))


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


def hand_made_loss(model, name, samples, labels, method) -> torch.Tensor:
    """Mean over the targets that are left, each predicted from the column before it."""
    total, count = 0.0, 0
    for row, sample in enumerate(samples):
        drop = dropped(sample, method)
        logits = Reference(model, name, sample).run(drop)
        own = labels[row, -len(sample.ids) :][drop.kept]
        total += cross_entropy(logits[:-1], own[1:], reduction="sum")
        count += int((own[1:] != -100).sum())
    return total / count


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
@stages
def test_labels_follow_their_tokens(name, method):
    model = zoo.model(name)
    samples = [zoo.sample(name, "image", i) for i in (0, 1)]
    inputs = zoo.batch(name, samples)
    labels = inputs["input_ids"].clone()
    labels[labels == zoo.IMAGE] = -100
    for row, sample in enumerate(samples):
        # Nothing that counts stands before a row's first token.
        labels[row, : -len(sample.ids) + 1] = -100
    with foveate.attach(model, method):
        out = model(**inputs, labels=labels)
        out.loss.backward()
    expected = hand_made_loss(model, name, samples, labels, method)
    assert abs(out.loss - expected) < TOLERANCE
    grad = model.get_decoder().layers[0].mlp.up_proj.weight.grad
    assert torch.isfinite(grad).all() and grad.abs().max() > 0
    model.zero_grad()


@stages
def test_padding_that_dropping_made_predicts_nothing(method):
    """A row that gets shorter than its neighbour has padding in front that was not there before."""
    model = zoo.model("llava")
    picture = zoo.sample("llava", "image", 0)
    samples = [picture, zoo.Sample(zoo.words(7, len(picture.ids)), None)]
    inputs = zoo.batch("llava", samples)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == zoo.IMAGE, -100)
    with foveate.attach(model, method), torch.no_grad():
        loss = model(**inputs, labels=labels).loss
    expected = hand_made_loss(model, "llava", samples, labels, method)
    assert abs(loss - expected) < TOLERANCE


@pytest.mark.parametrize(
    "name", ["llava", "qwen2_5_vl", "gemma3", "paligemma", "glm4v", "idefics3"]
)
@stages
def test_static_cache(name, method):
    model = zoo.model(name)
    with foveate.attach(model, method):
        dynamic = generate(model, both(name, "image"), 5)
        static = generate(
            model, both(name, "image"), 5, cache_implementation="static", disable_compile=True
        )
    for b in (0, 1):
        assert_equal(static.row(b), dynamic.row(b))


@once
def test_stages_compose(name, modality):
    """Half before the decoder, half of that at a boundary."""
    model = zoo.model(name)
    sample = zoo.sample(name, modality, 0)
    with foveate.attach(model, Half() + HalfAt(k=2)):
        run = generate(model, zoo.batch(name, [sample]), 4)
        batch = generate(model, both(name, modality), 4)
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


def test_talks_may_interleave():
    """Two prompts decoded in turn, each with its own cache."""
    model = zoo.model("qwen2_5_vl")
    samples = [zoo.sample("qwen2_5_vl", "image", i) for i in (0, 1)]
    with foveate.attach(model, Half(positions="packed") + HalfAt(k=2)), torch.no_grad():
        alone = [generate(model, zoo.batch("qwen2_5_vl", [s]), 4).tokens[0] for s in samples]
        talks = [model(**zoo.batch("qwen2_5_vl", [s]), use_cache=True) for s in samples]
        said: list[list[int]] = [[], []]
        deltas = [[int(d) for d in _deltas(model, s)] for s in samples]
        for _ in range(4):
            for i, talk in enumerate(talks):
                said[i].append(int(talk.logits[0, -1].argmax()))
                # The inner model remembers one talk's offset only, with or without foveate.
                model.model.rope_deltas = torch.tensor([deltas[i]])
                talks[i] = model(
                    input_ids=torch.tensor([[said[i][-1]]]),
                    past_key_values=talk.past_key_values,
                    use_cache=True,
                )
    assert said == [t.tolist() for t in alone]


def _deltas(model, sample):
    inputs = zoo.batch("qwen2_5_vl", [sample])
    del inputs["pixel_values"]
    return model.model.get_rope_index(**inputs)[1][0]
