"""The caches stage: what a part holds of each layer, in whatever form, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache

import foveate
from foveate.engine.cache.stored_layer import KeptLayer
from foveate.errors import InvalidParameter, UnsupportedCall
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.families.halves import Half, HalfAt, HalfHeld, Held

FAMILIES = ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3"]
some = pytest.mark.parametrize("name", FAMILIES)


def evicted_by_hand(model, one, steps: int):
    """Tokens and logits where the caches are thinned by hand between prefill and decoding."""
    ids = one["input_ids"]
    visual = (ids[0] == zoo.IMAGE).nonzero()[:, 0]
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        out = model(**one, past_key_values=cache, use_cache=True)
        for i, layer in enumerate(cache.layers):
            gone = visual[1::2] if i % 2 == 0 else visual[::2]
            left = torch.tensor([c for c in range(ids.shape[1]) if c not in gone.tolist()])
            layer.keys, layer.values = layer.keys[:, :, left], layer.values[:, :, left]
        tokens, logits = [], []
        for step in range(steps):
            row = out.logits[:, -1]
            logits.append(row)
            told = row.clone()
            told[:, [zoo.IMAGE, zoo.VIDEO]] = float("-inf")
            tokens.append(told.argmax(-1, keepdim=True))
            where = torch.tensor([[ids.shape[1] + step]])
            out = model(input_ids=tokens[-1], past_key_values=cache, position_ids=where)
    return torch.cat(tokens, 1), torch.stack(logits, 1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@some
def test_what_is_held_as_it_was_changes_nothing(name, attention):
    model = zoo.model(name, attention)
    alone, batch = pair(name)
    bare = [generate(model, inputs) for inputs in (*alone, batch)]
    with foveate.attach(model, Held()):
        for inputs, expected in zip((*alone, batch), bare, strict=True):
            assert close(generate(model, inputs), expected)


@some
def test_beams_take_their_stores_along(name):
    model = zoo.model(name)
    _, batch = pair(name)
    bare = model.generate(**batch, num_beams=3, max_new_tokens=8, do_sample=False)
    with foveate.attach(model, Held()):
        held = model.generate(**batch, num_beams=3, max_new_tokens=8, do_sample=False)
    assert torch.equal(held, bare)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_evicting_equals_caches_thinned_by_hand(attention):
    model = zoo.model("llava", attention)
    alone, batch = pair("llava")
    with foveate.attach(model, HalfHeld()) as att:
        rows = generate(model, batch, 6)
        singles = [generate(model, one, 6) for one in alone]
        full, held = att.report.kv_bytes_full, att.report.kv_bytes
    for i, one in enumerate(alone):
        assert close((rows[0][i : i + 1], rows[1][i : i + 1]), singles[i])
        assert close(singles[i], evicted_by_hand(model, one, 6))
    # The marks of importance take a byte per column.
    columns = alone[1]["input_ids"].shape[1]
    assert full - held == 5 * (8 * 2 * 16 * 4 - (columns - 8))


@some
def test_evicting_rows_of_a_batch_equals_each_alone(name):
    model = zoo.model(name)
    alone, batch = pair(name)
    with foveate.attach(model, HalfHeld()):
        rows = generate(model, batch)
        for i, one in enumerate(alone):
            assert close((rows[0][i : i + 1], rows[1][i : i + 1]), generate(model, one))
            beams = model.generate(**one, num_beams=2, max_new_tokens=4)
            assert beams.shape[1] == one["input_ids"].shape[1] + 4


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
@pytest.mark.parametrize("other", [Half(), HalfAt(), HalfAt(k=0)], ids=repr)
def test_goes_with_shorter_prompts(name, other):
    model = zoo.model(name)
    _, batch = pair(name)
    with foveate.attach(model, other):
        plain = generate(model, batch)
    with foveate.attach(model, other + Held()):
        assert close(generate(model, batch), plain)
    with foveate.attach(model, other + HalfHeld()) as att:
        generate(model, batch)
        assert att.report.kv_bytes < att.report.kv_bytes_full


@pytest.mark.parametrize("bits", [(4, 2), (8, 16)])
@some
def test_new_tokens_attend_to_stores_as_they_are(name, bits, monkeypatch):
    """They are read for one new token in three only, when a gap is full; the answer is the same."""
    model = zoo.model(name)
    _, batch = pair(name)
    reads = []
    joined = KeptLayer.joined
    monkeypatch.setattr(KeptLayer, "joined", lambda *given: reads.append(0) or joined(*given))
    with foveate.attach(model, Held(bits=bits)) as attachment:
        found = generate(model, batch, steps=8)
        few = len(reads)
        monkeypatch.setattr(attachment._setup.caches, "apart", lambda *_: {})
        assert close(generate(model, batch, steps=8), found)
    assert 0 < few < len(reads) - few


def test_other_kernels_are_given_what_stores_hold(monkeypatch):
    model = zoo.model("llava", "eager")
    (one, _), _ = pair("llava")
    monkeypatch.setattr(KeptLayer, "apart", property(lambda _: False, lambda *_: 1 / 0))
    with foveate.attach(model, Held()):
        generate(model, one)


@pytest.mark.parametrize("method", [Held(gap=2), HalfHeld()], ids=repr)
def test_a_second_turn_goes_on(method):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, method), torch.no_grad():
        first = model.generate(**one, max_new_tokens=3, return_dict_in_generate=True)
        cache = first.past_key_values
        twin = copy.deepcopy(cache)
        more = torch.cat([first.sequences, torch.tensor([[8, 9, 10]])], 1)
        turn = model.generate(more, past_key_values=cache, max_new_tokens=2)
        for column in range(one["input_ids"].shape[1] + 2, more.shape[1]):
            out = model(input_ids=more[:, column : column + 1], past_key_values=twin)
        told = out.logits[:, -1].clone()
        told[:, [zoo.IMAGE, zoo.VIDEO]] = float("-inf")
    assert int(told.argmax()) == int(turn[0, -2])


def test_the_tail_is_stored_gap_by_gap():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, Held(gap=4)), torch.no_grad():
        cache = model(**one, use_cache=True).past_key_values
        loose = []
        for _ in range(6):
            model(input_ids=one["input_ids"][:, :1], past_key_values=cache)
            loose.append(cache.layers[0].loose)
        assert loose == [1, 2, 3, 0, 1, 2]
        model(input_ids=one["input_ids"][:, :1], past_key_values=cache)
    assert cache.layers[4].loose == 3 and cache.get_seq_length() == one["input_ids"].shape[1] + 7


def test_a_cache_can_be_emptied_and_filled_again():
    model = zoo.model("llava")
    (one, two), _ = pair("llava")
    cache = DynamicCache()
    bare = generate(model, two)
    with foveate.attach(model, Held()):
        generate(model, one, past_key_values=cache)
        assert all(isinstance(layer, KeptLayer) for layer in cache.layers)
        cache.reset()
        assert cache.get_seq_length() == 0
        assert close(generate(model, two, past_key_values=cache), bare)


def test_new_columns_can_be_taken_back_and_stored_ones_not():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, Held(gap=None)), torch.no_grad():
        cache = model(**one, use_cache=True).past_key_values
        token = one["input_ids"][:, :1]
        first = model(input_ids=token, past_key_values=cache).logits
        cache.crop(-1)
        assert torch.equal(model(input_ids=token, past_key_values=cache).logits, first)
        with pytest.raises(UnsupportedCall, match="last 1 are stored unchanged"):
            cache.crop(-2)


@pytest.mark.parametrize(
    "how,message",
    [
        ({"cache_implementation": "static"}, "StaticCache"),
        ({"cache_implementation": "offloaded"}, "an offloaded cache"),
    ],
)
def test_refuses_what_it_cannot_hold(how, message):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, Held()), pytest.raises(UnsupportedCall, match=message):
        generate(model, one, 3, **how)


def test_candidates_are_taken_back_unless_others_were_stored_by_them():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    assistant = copy.deepcopy(model)
    with foveate.attach(model, Held(gap=None)):
        plain = generate(model, one, 6)[0]
        assert torch.equal(generate(model, one, 6, assistant_model=assistant)[0], plain)
    with foveate.attach(model, Held(gap=2)), pytest.raises(UnsupportedCall, match="assisted"):
        generate(model, one, 6, assistant_model=assistant)


def test_two_parts_cannot_hold_one_cache():
    with pytest.raises(InvalidParameter, match="Held and HalfHeld"):
        foveate.attach(zoo.model("llava"), Held() + HalfHeld())
    assert "_foveate" not in zoo.model("llava").model.__dict__


def test_no_cache_is_nothing_to_hold():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    bare = generate(model, one, 3)
    with foveate.attach(model, Held()):
        assert close(generate(model, one, 3, use_cache=False), bare)
