"""TC-LLaVA: ids, the frames' mask, and decoding that goes on with both counters."""

import pytest
import torch

import foveate
from foveate.engine.decoder import block_attention as blocks
from foveate.errors import InvalidParameter
from foveate.methods.layers.tc_llava import TCLLaVA, moments, same_frame
from foveate.ops.counting import counters
from tests.conformance.attention_call import columns, rotary, rotate
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.families.halves import Half

FRAME = torch.tensor([[-1, -1, 0, 0, 1, 1, 2, -1, -1, 3, -1]])


def facts(frame=FRAME):
    valid = torch.ones_like(frame, dtype=torch.bool)
    order, words, frames = counters(frame, valid)
    made = columns(frame >= 0, valid, order)
    return type(made)(**{**vars(made), "order": order, "words": words, "frames": frames})


def test_frames_and_words_move_time_on():
    assert moments(facts()).tolist() == [[0, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8]]
    assert moments(facts(), "zero_delta").tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4]]


def test_a_frame_sees_itself_and_what_was_before():
    own = facts()
    causal = torch.ones(11, 11).tril().bool()
    frame = FRAME[0].tolist()
    expected = [
        [k <= q or (frame[q] >= 0 and frame[q] == frame[k]) for k in range(11)] for q in range(11)
    ]
    assert (causal | same_frame(own, own)[0]).tolist() == expected
    single = facts(torch.tensor([[-1, 0, 1, 2, -1]]))
    assert not same_frame(single, single)[0].triu(1).any()


def test_two_rotations_are_one():
    tables, x = rotary(8, 1e4), torch.randn(1, 2, 11, 8)
    place, time = facts().order, 0.5 * moments(facts())
    once = rotate(x, *tables(place + time))
    assert torch.allclose(rotate(rotate(x, *tables(place)), *tables(time)), once, atol=1e-5)


@pytest.mark.parametrize("name,modality", [("llava", "image"), ("llava_next_video", "video")])
@pytest.mark.parametrize("method", [TCLLaVA(), Half() + TCLLaVA(gamma=0.5)], ids=str)
def test_decoding_is_one_long_prompt(name, modality, method):
    model, (_, batch) = zoo.model(name), pair(name, modality)
    with foveate.attach(model, method):
        cached = generate(model, batch, 5)
        assert close(generate(model, batch, 5, use_cache=False), cached)


@pytest.mark.parametrize("name,modality", [("llava", "image"), ("llava_next_video", "video")])
def test_frames_are_blocks_without_a_mask(name, modality, monkeypatch):
    """Where they are long enough, and rows of a batch are alike; otherwise the mask says it."""
    model, (alone, batch) = zoo.model(name), pair(name, modality)
    opened = []
    real = blocks._open
    monkeypatch.setattr(blocks, "_open", lambda *given: opened.append(real(*given)) or opened[-1])
    with foveate.attach(model, TCLLaVA()):
        masked = [generate(model, inputs, 3) for inputs in (alone[0], batch)]
        assert not opened
        monkeypatch.setattr(blocks, "BLOCK", 4)
        for inputs, expected in zip((alone[0], batch), masked, strict=True):
            assert close(generate(model, inputs, 3), expected)
    assert opened and all(piece.mask is None for piece in opened)


def test_plain_text_stands_at_twice_its_place():
    model, sample = zoo.model("llava"), zoo.batch("llava", [zoo.text_sample("llava")])
    where = 2 * torch.arange(sample["input_ids"].shape[1])[None]
    mask = torch.ones_like(where)
    with torch.no_grad():
        expected = model(input_ids=sample["input_ids"], position_ids=where, attention_mask=mask)
        with foveate.attach(model, TCLLaVA()):
            found = model(input_ids=sample["input_ids"])
    assert torch.allclose(found.logits, expected.logits, atol=1e-5)
    bare = generate(model, sample, 3)
    with foveate.attach(model, TCLLaVA(text_temporal="zero_delta")):
        assert close(generate(model, sample, 3), bare)


def test_refuses_an_unknown_rule():
    with pytest.raises(InvalidParameter, match="sometimes"):
        TCLLaVA(text_temporal="sometimes")
