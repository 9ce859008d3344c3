"""A cache that a method filled knows it: what the caller does with it is exact or refused."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from contextlib import nullcontext

import pytest
import torch
from transformers import DynamicCache, StaticCache

import foveate
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.families.halves import Half, HalfAt, HalfHeld, Held

CHANGED = [
    Half(),
    Half(positions="packed"),
    HalfAt(),
    HalfAt(positions="packed"),
    Half() + HalfAt(k=3),
    foveate.TCLLaVA(),
    HalfHeld(),
]
methods = pytest.mark.parametrize("method", CHANGED, ids=repr)
QUESTION, OTHER = torch.tensor([zoo.words(51, 5)]), torch.tensor([zoo.words(52, 7)])


def filled(model, inputs, method, steps: int = 3):
    """What `generate` said under a method, with its cache."""
    with foveate.attach(model, method):
        return model.generate(
            **inputs, max_new_tokens=steps, do_sample=False, return_dict_in_generate=True
        )


def after(model, said, cache, question=QUESTION, steps: int = 4):
    """Tokens and logits of a further turn, behind `said` (B, L)."""
    ids = torch.cat([said, question.expand(len(said), -1)], 1)
    mask = torch.ones_like(ids)
    return generate(model, {"input_ids": ids, "attention_mask": mask}, steps, past_key_values=cache)


@methods
def test_goes_on_under_an_equal_method_only(method):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, method):
        run = model.generate(**one, max_new_tokens=3, return_dict_in_generate=True)
        expected = after(model, run.sequences, copy.deepcopy(run.past_key_values))
    with foveate.attach(model, copy.deepcopy(method)):
        assert close(after(model, run.sequences, copy.deepcopy(run.past_key_values)), expected)
    with pytest.raises(foveate.UnsupportedCall, match="is not attached"):
        after(model, run.sequences, copy.deepcopy(run.past_key_values))
    with foveate.attach(model, foveate.DivPrune(keep=3)):
        with pytest.raises(foveate.UnsupportedCall, match=r"with DivPrune\(keep=3\)"):
            after(model, run.sequences, copy.deepcopy(run.past_key_values))
    with foveate.attach(model, method):
        assert close(after(model, run.sequences, run.past_key_values), expected)


@pytest.mark.parametrize("sample", ["picture", "text"])
@pytest.mark.parametrize("method", [*CHANGED, foveate.VistaLLaMA(), foveate.ZipVL()], ids=repr)
def test_a_bare_cache_goes_on_bare(method, sample):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    if sample == "text":
        one = zoo.batch("llava", [zoo.text_sample("llava")])
    run = model.generate(**one, max_new_tokens=3, return_dict_in_generate=True)
    expected = after(model, run.sequences, copy.deepcopy(run.past_key_values))
    with foveate.attach(model, method):
        assert close(after(model, run.sequences, run.past_key_values), expected)


@methods
def test_keeping_all_leaves_a_cache_that_anybody_continues(method):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    run = filled(model, one, foveate.DivPrune(keep=1.0) + foveate.FastV(keep=1.0))
    expected = after(model, run.sequences, copy.deepcopy(run.past_key_values))
    with foveate.attach(model, method):
        assert close(after(model, run.sequences, run.past_key_values), expected)


@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
@pytest.mark.parametrize(
    "name,method",
    [
        *(("llava", method) for method in CHANGED[:-1]),
        ("gemma3", HalfAt(positions="packed")),
        ("qwen2_5_vl", Half() + HalfAt(k=3)),
    ],
    ids=repr,
)
def test_one_cache_for_many_prompts(name, method, kind):
    model = zoo.model(name)
    (one, two), _ = pair(name)
    if kind is StaticCache:
        cache = StaticCache(config=model.config, max_cache_len=64)
    else:
        cache = DynamicCache(config=model.config)
    text = zoo.batch(name, [zoo.text_sample(name)])
    with foveate.attach(model, method):
        expected = [generate(model, x, 4) for x in (one, two, text, one)]
        for inputs, want in zip((one, two, text, one), expected, strict=True):
            assert close(
                generate(model, inputs, 4, past_key_values=cache, disable_compile=True), want
            )
            cache.reset()
    bare = generate(model, one, 4)
    assert close(generate(model, one, 4, past_key_values=cache, disable_compile=True), bare)


@methods
def test_cropped_to_nothing_a_cache_is_empty(method):
    model = zoo.model("llava")
    (one, two), _ = pair("llava")
    run = filled(model, one, method)
    expected = generate(model, two, 4)
    if not isinstance(method, HalfHeld):
        run.past_key_values.crop(-run.past_key_values.get_seq_length())
    else:
        run.past_key_values.reset()
    assert close(generate(model, two, 4, past_key_values=run.past_key_values), expected)


@pytest.mark.parametrize(
    "name,method",
    [
        *(("llava", method) for method in CHANGED[:-1]),
        ("gemma3", HalfAt(positions="packed")),
        ("qwen3_vl", Half() + HalfAt(k=3)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("back", [2, 3, 5], ids=["answer", "all of the answer", "question"])
def test_cropping_takes_back_what_was_said_last(name, method, back):
    """As if those columns had never come, by hand and in `generate`."""
    model = zoo.model(name)
    (one, _), _ = pair(name)
    length = one["input_ids"].shape[1]
    more = torch.tensor([[7, 8, 9]])
    with foveate.attach(model, method), torch.no_grad():
        cache = DynamicCache(config=model.config)
        cache.activate_past_recording()
        model(**one, use_cache=True, past_key_values=cache)
        model(input_ids=more, past_key_values=cache)
        cache.crop(-back)
        assert cache.get_seq_length() == length + 3 - back
        said = torch.cat([one["input_ids"], more], 1)[:, : length + 3 - back]
        expected = model(**one, use_cache=True).past_key_values
        if back < 3:
            model(input_ids=more[:, : 3 - back], past_key_values=expected)
        if back <= 3:
            assert close(after(model, said, cache), after(model, said, expected))
            return
        # The question's last words come once more, behind those that are left of it.
        words = one["input_ids"][:, 3 - back :]
        again = model(input_ids=words, past_key_values=cache).logits
        assert (again[:, -1] - model(**one).logits[:, -1]).abs().max() < 2e-4
        said = one["input_ids"]
        assert close(after(model, said, cache), after(model, said, expected))


def test_windows_that_let_columns_go_cannot_be_cropped():
    model = zoo.model("gemma3")
    (one, _), _ = pair("gemma3")
    run = filled(model, one, HalfAt())
    held = [layer.get_seq_length() for layer in run.past_key_values.layers]
    with pytest.raises(foveate.UnsupportedCall, match="activate_past_recording"):
        run.past_key_values.crop(-1)
    assert [layer.get_seq_length() for layer in run.past_key_values.layers] == held


@methods
def test_a_picture_cannot_be_cropped(method):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    run = filled(model, one, method)
    held = [layer.get_mask_sizes(0) for layer in run.past_key_values.layers]
    with pytest.raises(foveate.UnsupportedCall, match="crop"):
        run.past_key_values.crop(-run.past_key_values.get_seq_length() + 6)
    assert [layer.get_mask_sizes(0) for layer in run.past_key_values.layers] == held


@methods
def test_copies_go_on_alone_and_can_be_saved(method):
    """A prompt is read once, and several questions are asked behind copies of its cache."""
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, method):
        run = model.generate(**one, max_new_tokens=3, return_dict_in_generate=True)
        first = after(model, run.sequences, copy.deepcopy(run.past_key_values))
        other = after(model, run.sequences, copy.deepcopy(run.past_key_values), OTHER)
        file = io.BytesIO()
        torch.save(run.past_key_values, file)
        file.seek(0)
        saved = torch.load(file, weights_only=False)
        assert close(after(model, run.sequences, copy.deepcopy(saved), OTHER), other)
        twin = copy.deepcopy(saved)
        assert close(after(model, run.sequences, saved), first)
        assert close(after(model, run.sequences, run.past_key_values, OTHER), other)
    with pytest.raises(foveate.UnsupportedCall, match="is not attached"):
        after(model, run.sequences, twin)


def test_a_cache_is_gone_when_nobody_holds_it():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    gc.disable()
    try:
        run = filled(model, one, Half())
        held = weakref.ref(run.past_key_values)
        assert run.past_key_values.get_seq_length() == run.sequences.shape[1] - 1
        del run
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "name,method",
    [
        *(("llava", method) for method in [*CHANGED, foveate.DyMU(keep=8)]),
        ("qwen2_5_vl", Half(positions="packed") + HalfAt(k=3)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("how", ["reordered", "selected", "repeated"])
def test_rows_that_the_caller_moves_take_their_prompt_along(name, method, how):
    model = zoo.model(name)
    alone, batch = pair(name)
    rows = {"reordered": [1, 0], "selected": [1], "repeated": [0, 0, 1, 1]}[how]
    with foveate.attach(model, method), torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
        if how == "reordered":
            cache.reorder_cache(torch.tensor(rows))
        elif how == "selected":
            cache.batch_select_indices(torch.tensor(rows))
        else:
            cache.batch_repeat_interleave(2)
        step = torch.tensor([[9]])
        mask = torch.cat([batch["attention_mask"], torch.ones(2, 1).long()], 1)[rows]
        where = None
        if name == "qwen2_5_vl":
            where = positions(model, alone)[rows].expand(3, -1, -1)
        got = model(
            input_ids=step.expand(len(rows), -1),
            attention_mask=mask,
            position_ids=where,
            past_key_values=cache,
        ).logits
        for b, row in enumerate(rows):
            own = model(**alone[row], use_cache=True).past_key_values
            expected = model(input_ids=step, past_key_values=own).logits
            assert (got[b] - expected[0]).abs().max() < 2e-4


def positions(model, alone) -> torch.Tensor:
    """Position (2, 1) of the token behind each sample, as the bare model counts."""
    found = []
    for one in alone:
        told = {k: v for k, v in one.items() if k != "pixel_values"}
        offset = model.model.get_rope_index(**told)[1].flatten()[0]
        found.append(one["input_ids"].shape[1] + offset)
    return torch.stack(found)[:, None]


def test_a_cache_changed_layer_by_layer_is_refused():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, Half()):
        run = model.generate(**one, max_new_tokens=3, return_dict_in_generate=True)
        for layer in run.past_key_values.layers:
            layer.crop(-1)
        with pytest.raises(foveate.UnsupportedCall, match="not layer by layer"):
            after(model, run.sequences, run.past_key_values)


def test_a_text_model_called_by_itself_is_refused():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, Half()):
        cache = model(**one, use_cache=True).past_key_values
        with pytest.raises(foveate.UnsupportedCall, match="is not attached"):
            model.model.language_model(input_ids=QUESTION, past_key_values=cache)


def test_another_number_of_rows_is_refused():
    model = zoo.model("llava")
    _, batch = pair("llava")
    with foveate.attach(model, Half()), torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
        with pytest.raises(foveate.UnsupportedCall, match="has 2 rows, but the call has 1"):
            model(input_ids=QUESTION, past_key_values=cache)


@pytest.mark.parametrize("context", [nullcontext, torch.no_grad])
def test_what_fails_leaves_the_cache_closed(context):
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, Half()), context():
        cache = model(**one, use_cache=True).past_key_values
        with pytest.raises(IndexError):
            model(input_ids=torch.tensor([[10_000]]), past_key_values=cache)
        assert not cache.foveate.open


def test_held_layers_can_be_reset():
    model = zoo.model("llava")
    (one, two), _ = pair("llava")
    run = filled(model, one, Held())
    run.past_key_values.reset()
    expected = generate(model, two, 3)
    assert close(generate(model, two, 3, past_key_values=run.past_key_values), expected)
