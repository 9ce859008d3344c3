"""ZipVL: attention among important tokens only, the cache in mixed bits, bytes that are there."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

import foveate
from foveate.attention_call import AttentionCall, Columns, Seam
from foveate.budget import ADAPTIVE
from foveate.errors import InvalidParameter
from tests.engine.running import close, generate, pair
from tests.families import zoo

FAMILIES = ["llava", "qwen2_5_vl", "gemma3"]


def attending(n: int, seed: int = 0, saved: list | None = None) -> AttentionCall:
    """A causal call over n columns, 10 of them visual: 4 heads of 8 that share 2 key heads."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(1, h, n, 8, generator=generator) * 2 for h in (4, 2, 2))
    steps = torch.arange(n)[None]
    ones, visual = torch.ones(1, n, dtype=torch.bool), (steps >= 5) & (steps < 15)
    facts = dict.fromkeys((f.name for f in fields(Columns)), steps)
    item = visual.long() - 1
    picture = {
        "visual": visual,
        "item": item,
        "frame": item,
        "place": item[..., None].expand(-1, -1, 3),
    }
    columns = Columns(**{**facts, **picture, "valid": ones})
    seam = Seam(
        "sdpa", True, None, None, None, lambda flops, kv=None: saved.append(flops), None, None
    )
    return AttentionCall(
        query=query,
        key=key,
        value=value,
        mask=None,
        scaling=8**-0.5,
        queries=columns,
        keys=columns,
        cos=torch.ones(1, n, 8),
        sin=torch.zeros(1, n, 8),
        layer=0,
        layers=1,
        prefill=True,
        window=None,
        notes={},
        seam=seam,
    )


def dense(call: AttentionCall) -> torch.Tensor:
    """Plain causal attention (B, q, H, d)."""
    key, value = (x.repeat_interleave(2, 1) for x in (call.key, call.value))
    n = call.query.shape[2]
    logits = call.query @ key.mT * call.scaling
    logits = logits.masked_fill(~torch.ones(n, n).tril().bool(), float("-inf"))
    return (logits.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("method", [foveate.ZipVL(tau=0.8), foveate.ZipVL(keep=0.4)], ids=repr)
def test_important_tokens_attend_among_themselves_and_others_get_nothing(method):
    saved: list = []
    call = attending(40, saved=saved)
    out = method.attend(call, dense)
    chosen = call.notes["layer 0"][0]
    p = int(chosen.sum())
    assert 1 < p < 40 and chosen[-1]
    inside = [x[:, :, chosen] for x in (call.query, call.key, call.value)]
    small = dense(replace(call, query=inside[0], key=inside[1], value=inside[2]))
    torch.testing.assert_close(out[:, chosen], small)
    assert not out[:, ~chosen].any()
    assert saved[0].tolist() == [4 * 32 * (1600 - p * p)]


def test_tokens_that_do_not_matter_can_change_places():
    call = attending(40, saved=[])
    method = foveate.ZipVL(keep=0.4)
    out = method.attend(call, dense)
    chosen = call.notes["layer 0"][0]
    moved = torch.arange(40)
    outside = (~chosen).nonzero()[:, 0]
    moved[outside] = outside.roll(1)
    # Their places change among each other behind the choice, which is told as it was.
    other = replace(
        call,
        query=call.query[:, :, moved],
        key=call.key[:, :, moved],
        value=call.value[:, :, moved],
    )
    index = chosen.nonzero()[:, 0][None]
    torch.testing.assert_close(dense(other.square(index)), out[:, chosen])


def test_all_attention_is_dense_attention():
    call = attending(30, saved=[])
    torch.testing.assert_close(foveate.ZipVL(tau=1.0).attend(call, dense), dense(call))
    assert call.notes["layer 0"].all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", FAMILIES)
def test_all_attention_in_sixteen_bits_is_the_bare_model(name, attention):
    model = zoo.model(name, attention)
    _, batch = pair(name)
    bare = generate(model, batch)
    with foveate.attach(model, foveate.ZipVL(tau=1.0, bits=(16, 16), streaming_gap=3)):
        assert close(generate(model, batch), bare)


@pytest.mark.parametrize("name", FAMILIES)
def test_kernels_agree(name):
    alone, batch = pair(name)
    method = foveate.ZipVL(tau=0.9, streaming_gap=4)
    runs = []
    for attention in ("sdpa", "eager"):
        model = zoo.model(name, attention)
        with foveate.attach(model, method):
            runs.append(generate(model, batch, 6))
    assert close(*runs)


def test_how_many_matter_depends_on_layer_and_input_and_grows_with_tau():
    model = zoo.model("llava")
    _, batch = pair("llava")

    def counts(tau: float) -> torch.Tensor:
        method = foveate.ZipVL(tau=tau, evict=True)
        with foveate.attach(model, method), torch.no_grad():
            cache = model(**batch, use_cache=True).past_key_values
        return torch.stack([layer.stores[0].valid.sum(1) for layer in cache.layers])

    few, more = counts(0.7), counts(0.95)
    assert (few <= more).all() and len(few.unique()) > 2
    lengths = batch["attention_mask"].sum(1)
    assert torch.equal(counts(1.0), lengths.expand(5, -1))


@pytest.mark.parametrize("bits", [None, (8, 4), (4, 16)])
def test_the_report_tells_the_bytes_that_are_there(bits):
    model = zoo.model("llava")
    _, batch = pair("llava")
    method = foveate.ZipVL(keep=0.5, bits=bits)
    with foveate.attach(model, method) as att, torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
    assert att.report.kv_bytes == sum(layer.nbytes for layer in cache.layers)
    n = batch["attention_mask"].sum(1).tolist()
    p = [round(x / 2) for x in n]
    high, low = bits or (4, 2)
    # Two key heads of 8; ranges of keys and values, one scale per sample; a mark per column.
    codes = sum(2 * 16 * (a * high + (b - a) * low) // 8 for a, b in zip(p, n, strict=True))
    ranges = sum(16 + 2 * (16 + a) for a in p)
    ranges += sum(2 * (16 + b - a) for a, b in zip(p, n, strict=True)) if low < 16 else 0
    if low == 16:
        codes += sum(2 * 16 * (b - a) * 2 for a, b in zip(p, n, strict=True))
    assert att.report.kv_bytes == 5 * (codes + 4 * ranges + 2 * max(n))


def test_the_report_tells_the_attention_that_is_done():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    reports = []
    for method in (foveate.ZipVL(keep=0.5), foveate.ZipVL(keep=0.5, probes=(3, 2))):
        with foveate.attach(model, method) as att, torch.no_grad():
            model(**one, use_cache=True)
        reports.append(att.report)
    n = one["input_ids"].shape[1]
    p = round(n / 2)
    for report, probes in zip(reports, (n, 5), strict=True):
        assert report.flops_full - report.flops == 5 * 4 * 32 * (n * n - p * p)
        assert report.method_flops == 5 * 2 * probes * n * 32


def test_what_is_read_is_near_to_what_was_cached():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with torch.no_grad():
        bare = model(**one, use_cache=True).past_key_values.layers[0]
        with foveate.attach(model, foveate.ZipVL()):
            layer = model(**one, use_cache=True).past_key_values.layers[0]
    store = layer.stores[0]
    keys, values = store.read()
    for group, inside in enumerate((store.important[0], ~store.important[0])):
        row = store.rows[0]
        off = [(x - y)[0].abs()[:, inside] for x, y in ((keys, bare.keys), (values, bare.values))]
        assert (off[0] <= row.keys[group].step / 2 + 1e-5).all()
        assert (off[1] <= row.values[group].step / 2 * row.scale + 1e-5).all()


def test_new_tokens_are_packed_gap_by_gap():
    model = zoo.model("llava")
    _, batch = pair("llava")
    with foveate.attach(model, foveate.ZipVL(streaming_gap=4)), torch.no_grad():
        cache = model(**batch, use_cache=True).past_key_values
        sizes, loose = [], []
        for _ in range(9):
            mask = torch.nn.functional.pad(
                batch["attention_mask"],
                (0, cache.get_seq_length() + 1 - batch["input_ids"].shape[1]),
                value=1,
            )
            model(input_ids=batch["input_ids"][:, -1:], attention_mask=mask, past_key_values=cache)
            loose.append(cache.layers[2].loose)
            sizes.append(cache.layers[2].nbytes)
    assert loose == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert sizes[3] < sizes[2] and len(cache.layers[2].stores) == 3
    assert cache.layers[2].stores[1].valid.shape == (2, 4)


def test_beams_and_seeds():
    model = zoo.model("llava")
    _, batch = pair("llava")
    method = foveate.ZipVL(tau=0.8, probes=(4, 3), streaming_gap=2)
    with foveate.attach(model, method):
        one, two = (model.generate(**batch, num_beams=3, max_new_tokens=6) for _ in range(2))
        greedy = generate(model, batch, 4)
    assert torch.equal(one, two)
    with foveate.attach(model, replace(method, seed=9)):
        assert not close(generate(model, batch, 4), greedy)


def test_a_count_is_beside_all_text():
    model = zoo.model("llava")
    (one, _), _ = pair("llava")
    with foveate.attach(model, foveate.ZipVL(keep=4, evict=True)) as att:
        out = model.generate(**one, max_new_tokens=2, return_dict_in_generate=True)
    text = one["input_ids"].shape[1] - 16
    assert {layer.held for layer in out.past_key_values.layers} == {text + 4 + 1}
    assert att.report.tokens_by_layer == [[16] * 5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau": 0.0},
        {"tau": 1.2},
        {"bits": (3, 2)},
        {"probes": (0, 4)},
        {"streaming_gap": 0},
        {"denominators": "all"},
    ],
    ids=repr,
)
def test_refuses_what_makes_no_sense(wrong):
    with pytest.raises(InvalidParameter, match=next(iter(wrong))):
        foveate.ZipVL(**wrong)


def test_says_that_tau_decides():
    assert foveate.ZipVL().keep == ADAPTIVE
    assert repr(foveate.ZipVL(tau=0.96)) == "ZipVL(tau=0.96)"


def test_other_parts_are_shown_columns_in_their_own_order():
    """Where all that a padded row has is important, it has as many columns as the layer."""
    model = zoo.model("internvl")
    method = foveate.GSearch(keep=0.5) + foveate.ZipVL(keep=3)
    samples = [zoo.sample("internvl", "image", i) for i in (0, 1)]
    with foveate.attach(model, method):
        together = generate(model, zoo.batch("internvl", samples, padding=1), 3)
        for i, one in enumerate(samples):
            alone = generate(model, zoo.batch("internvl", [one]), 3)
            assert close((together[0][i : i + 1], together[1][i : i + 1]), alone)


@pytest.mark.parametrize("other", [foveate.YOPO(), foveate.TCLLaVA()], ids=repr)
def test_rows_in_pieces_are_refused_and_the_other_way_round_holds(other):
    """What a layer needs is chosen once, among all of its tokens."""
    model = zoo.model("qwen3_vl")
    samples = [zoo.sample("qwen3_vl", "image", i) for i in (0, 1)]
    inputs = zoo.batch("qwen3_vl", samples, padding=5)
    with foveate.attach(model, other + foveate.ZipVL(keep=0.5)):
        with pytest.raises(foveate.UnsupportedCall, match="put ZipVL first"):
            model(**inputs)
    with foveate.attach(model, foveate.ZipVL(keep=0.5) + other):
        together = generate(model, inputs, 3)
        for i, one in enumerate(samples):
            alone = generate(model, zoo.batch("qwen3_vl", [one]), 3)
            assert close((together[0][i : i + 1], together[1][i : i + 1]), alone)
