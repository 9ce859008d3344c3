"""Streaming metrics on dialogues small enough to count by hand."""

from dataclasses import replace

import pytest
import torch

import foveate
from foveate.benchmarks.streaming import Stream, evaluate, in_order, stream_metrics
from foveate.errors import UnsupportedCall

V, COMMA, EOS, WORDS = 3, 4, 2, 12
STREAM = Stream(frame=V, interval=COMMA, eos=EOS, tokens=1)


def dialogue(turns):
    """Ids and labels of turns (frames, words); a last frame learns 5, others a comma."""
    ids, labels = [], []
    for frames, words in turns:
        for j in range(frames):
            ids += [V, COMMA] if j < frames - 1 else [V]
            labels += [COMMA, -100] if j < frames - 1 else [5]
        said = [*range(6, 6 + words), EOS]
        ids += [5, *said]
        labels += [*said, -100]
    return torch.tensor(ids), torch.tensor(labels)


def says(ids, labels, wrong=()):
    """Logits that follow the labels, but not at the given places."""
    target = labels.clamp(min=0)
    for place, token in dict(wrong).items():
        target[place] = token
    return torch.nn.functional.one_hot(target, WORDS).float() * 20


def metrics(turns, wrong=(), late=99, stream=STREAM):
    ids, labels = dialogue(turns)

    def follow(start, new):
        token = torch.full_like(new, COMMA)
        token[(new == V).nonzero()[:, 0][late - 1 :]] = 5
        return torch.nn.functional.one_hot(token, WORDS).float() * 20

    return stream_metrics(ids, labels, says(ids, labels, wrong), follow, stream)


def test_all_right():
    found = metrics([(3, 2), (2, 1)])
    assert abs(found.perplexity - 1) < 1e-4
    assert (found.frames, found.fluency, found.correctness) == (0, 1, 1)


def test_too_early_and_too_late():
    # Of three frames the model speaks behind the first: two frames early.
    found = metrics([(3, 2)], {0: 5})
    assert found.frames == 2 and found.fluency == (3 - 2) / (3 + 3)
    # Silent to the end, it speaks behind the second of the next frames; as many as two are shown.
    assert metrics([(3, 2), (4, 0)], {4: COMMA}, late=2).frames == (2 + 0) / 2
    assert metrics([(3, 2), (4, 0)], {4: COMMA}).frames == (2 + 0) / 2
    assert metrics([(3, 2)], {4: COMMA}).frames == 0, "nothing comes that could be shown"


def test_the_first_wrong_word_counts():
    found = metrics([(1, 3)], {2: 0})
    assert found.correctness == 1 / 4 and found.fluency == (1 + 1) / (1 + 4)


def test_the_threshold_zeroes_a_row_or_the_interval():
    logits = torch.log(torch.tensor([0.1, 0.0, 0.0, 0.2, 0.6, 0.1]) + 1e-9)
    bold, shy = (replace(STREAM, threshold=t) for t in (0.7, 0.5))
    assert bold.speaks(logits[None]).tolist() == [True]
    assert shy.speaks(logits[None]).tolist() == [False]
    assert (bold.demo_token(logits), shy.demo_token(logits)) == (3, COMMA)


def test_queries_come_before_later_frames():
    order = list(in_order([0.0, 0.5, 1.0], [0.0, 0.2, 1.0, 1.0, 7.0]))
    names = "".join(f"{kind[0]}{number}" for kind, number in order)
    assert names == "f0q0q1f1f2q2q3q4"


@pytest.fixture(scope="module")
def watched():
    """A model and a dialogue of two turns about five pictures, each a frame."""
    model, processor = foveate.mini("nano")
    images = [item.image() for item in foveate.mini.world.items("I1", "test", 5)]
    text = "<image>,<image>,<image> red<eos><image>,<image> red<eos>"
    made = processor(images=images, text=text, return_tensors="pt")
    ids = made["input_ids"][0]
    picture = model.config.image_token_id
    comma = processor.tokenizer.convert_tokens_to_ids(",")
    stream = Stream(
        frame=picture,
        interval=comma,
        eos=processor.tokenizer.eos_token_id,
        tokens=int((ids == picture).sum()) // 5,
    )
    labels = torch.cat([ids[1:], ids.new_tensor([-100])])
    labels = labels.masked_fill(labels == picture, -100).masked_fill(ids == comma, -100)
    return model, ids, labels, stream, made["pixel_values"]


def test_metrics_of_a_model_with_its_method(watched):
    model, ids, labels, stream, pixels = watched
    shown = []

    def pictures(frames):
        shown.append(frames)
        return {"pixel_values": pixels[:frames]} if frames else {}

    bare = evaluate(model, ids, labels, stream, pictures)
    with torch.no_grad():
        logits = model(input_ids=ids[None], pixel_values=pixels).logits[0]

    def follow(start, new):
        longer = torch.cat([ids[:start], new])[None]
        count = int((longer == stream.frame).sum()) // stream.tokens
        with torch.no_grad():
            return model(input_ids=longer, pixel_values=pixels[:count]).logits[0, start:]

    assert bare == stream_metrics(ids, labels, logits, follow, stream)
    assert shown[0] == 5 and all(frames <= 5 for frames in shown)
    with foveate.attach(model, foveate.VideoLLMMoD(selector="uniform", keep_ratio=0.2)):
        assert evaluate(model, ids, labels, stream, pictures) != bare
    with foveate.attach(model, foveate.VideoLLMMoD(selector="uniform", keep=1.0)):
        assert evaluate(model, ids, labels, stream, pictures).perplexity == pytest.approx(
            bare.perplexity
        )
    with foveate.attach(model, foveate.DivPrune(keep=4)):
        with pytest.raises(UnsupportedCall, match="keeps every token"):
            evaluate(model, ids, labels, stream, pictures)


def test_late_answers_are_searched_after_the_shown_frames():
    ids, labels = dialogue([(3, 2), (4, 0)])

    class Waits:
        """Waits behind each frame, but for the fourth."""

        def __call__(self, input_ids, use_cache):
            number = (input_ids[0] == V).long().cumsum(0)
            token = torch.where((input_ids[0] == V) & (number == 4), 5, COMMA)
            logits = torch.nn.functional.one_hot(token, WORDS).float() * 20
            return type("Output", (), {"logits": logits[None]})

    found = evaluate(Waits(), ids, labels, STREAM)
    # One frame behind the last of the first turn; of the four of the second three early.
    assert found.frames == (1 + 3) / 2
