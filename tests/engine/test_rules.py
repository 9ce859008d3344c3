"""Rules that change nothing are the bare model, by every door that a rule has."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

import foveate
from foveate.attention_call import AttentionCall, MLPCall
from foveate.errors import UnsupportedCall
from foveate.method import Method
from foveate.methods.layers.fastv import FastV
from foveate.methods.layers.vista_llama import VistaLLaMA
from foveate.methods.layers.yopo import YOPO
from foveate.parts import LayersPart, RulePart
from foveate.signals import DecoderAttention
from tests.families import zoo
from tests.families.halves import Half, HalfAt
from tests.families.reference import Drop, Reference, every_second
from tests.families.running import assert_equal, assert_unequal, bare, generate
from tests.families.test_turns import by_hand, text_of


@dataclass(frozen=True, kw_only=True, repr=False)
class Around(Method, RulePart):
    """Goes through every door and comes back: leaves visual columns raw, turns them later."""

    slug = "around"

    def place(self, columns, notes):
        return columns.positions * 1.0

    def raw(self, columns):
        return columns.visual

    def attend(self, call: AttentionCall, proceed) -> Tensor:
        shown = call.queries.visual[:, None, :, None], call.keys.visual[:, None, :, None]
        query = torch.where(shown[0], call.turned(call.query), call.query)
        key = torch.where(shown[1], call.rotated(call.key, call.keys.positions), call.key)
        call = replace(call, query=query, key=key)
        again = call.turned(call.turned(query, back=True))
        assert torch.allclose(again, query, atol=1e-4)
        return proceed(call.masked(call.seen()))

    def feed(self, call: MLPCall, proceed) -> Tensor:
        out = torch.empty_like(call.x)
        for rows in (call.columns.visual, ~call.columns.visual):
            out[rows] = call.apply(call.x[rows], call.width)
        return out


@dataclass(frozen=True, kw_only=True, repr=False)
class Pieces(Method, RulePart):
    """Attends in two pieces of rows, over keys picked from the whole prompt."""

    slug = "pieces"

    def attend(self, call: AttentionCall, proceed) -> Tensor:
        held = call.whole().held
        # In order, what nobody holds at the end.
        index = held.masked_fill(held < 0, 10**6).sort(1).values
        real = index < 10**6
        call = call.columns(index.masked_fill(~real, 0), real)
        q = call.query.shape[2]
        steps = torch.arange(q, device=held.device).expand(len(held), -1)
        halves = [call.rows(steps[:, half]) for half in (slice(0, q // 2), slice(q // 2, q))]
        return torch.cat([proceed(half) for half in halves if half.query.shape[2]], 1)


@dataclass(frozen=True, kw_only=True, repr=False)
class NoPicture(Method, RulePart):
    """Text does not see visual tokens in the layers from 2 on."""

    slug = "no_picture"

    def layers(self, n):
        return tuple(range(2, n))

    def attend(self, call: AttentionCall, proceed) -> Tensor:
        return proceed(call.masked(call.seen() & ~call.keys.visual[:, None, None, :]))


CASES = [
    pytest.param(*case, marks=() if case[0] in ("llava", "qwen2_5_vl") else pytest.mark.slow)
    for case in zoo.CASES
]
RULES = pytest.mark.parametrize("rule", [Around(), Pieces(), Around() + Pieces()], ids=str)


@pytest.mark.parametrize(("name", "modality"), CASES)
@RULES
def test_a_rule_that_changes_nothing_is_the_bare_model(name, modality, rule):
    model = zoo.model(name)
    expected = [bare(name, modality, "sdpa", i) for i in (0, 1)]
    inputs = zoo.batch(name, [zoo.sample(name, modality, i) for i in (0, 1)])
    with foveate.attach(model, rule) as att:
        run = generate(model, inputs)
        assert att.report.flops == att.report.flops_full
    for i in (0, 1):
        assert_equal(run.row(i), expected[i].row(0))
    one = zoo.batch(name, [zoo.sample(name, modality, 0)])
    assert torch.equal(generate(model, one).logits, expected[0].logits)
    assert not any(m._forward_pre_hooks or "forward" in m.__dict__ for m in model.modules())


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3", "paligemma", "glm4v"])
def test_eager_attention_too(name):
    model = zoo.model(name, "eager")
    with foveate.attach(model, Around() + Pieces()):
        run = generate(model, zoo.batch(name, [zoo.sample(name, "image", 0)]), 6)
    expected = bare(name, "image", "eager", 0)
    assert_equal(run.row(0), (expected.tokens[0, :6], expected.logits[0, :6]))


@pytest.mark.parametrize("name", ["llava", "qwen3_vl", "gemma3", "llava_onevision"])
@RULES
@pytest.mark.parametrize("packed", [False, True])
def test_rules_hold_for_the_columns_that_are_left(name, rule, packed):
    model = zoo.model(name)
    sample = zoo.sample(name, "image", 0)
    positions = "packed" if packed else "original"
    reference = Reference(model, name, sample)
    for method, drop in (
        (Half(positions=positions), Drop(every_second(sample), packed=packed)),
        (
            HalfAt(k=2, positions=positions),
            Drop(every_second(sample, per_item=False), 2, packed=packed),
        ),
    ):
        with foveate.attach(model, method + rule):
            run = generate(model, zoo.batch(name, [sample]), 6)
            batch = generate(model, zoo.pair(name, "image"), 6)
        assert_equal(run.row(0), reference.generate(drop, 6))
        assert_equal(batch.row(0), run.row(0))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
@pytest.mark.parametrize(
    "options", [{"cache_implementation": "static", "disable_compile": True}, {"use_cache": False}]
)
def test_rules_hold_with_other_caches(name, options):
    model = zoo.model(name)
    with foveate.attach(model, Half() + Around() + NoPicture()):
        expected = generate(model, zoo.pair(name, "image"), 5)
        run = generate(model, zoo.pair(name, "image"), 5, **options)
    for b in (0, 1):
        assert_equal(run.row(b), expected.row(b))
    with foveate.attach(model, Half() + Around() + NoPicture() + Pieces()):
        pieces = generate(model, zoo.pair(name, "image"), 5, **options)
    for b in (0, 1):
        assert_equal(pieces.row(b), expected.row(b))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_turns_beams_and_loops_by_hand(name):
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", 0)])
    words = torch.tensor([zoo.words(50, 4)])
    said = []
    for method in (Half(), Half() + Around() + Pieces()):
        with foveate.attach(model, method):
            first = generate(model, inputs, 4)
            longer = torch.cat([first.output.sequences, words], 1)
            again = text_of(inputs, longer)
            second = generate(model, again, 5, past_key_values=first.output.past_key_values)
            beams = generate(model, zoo.pair(name, "image"), 5, num_beams=3)
            loop = by_hand(model, inputs, 4)
        said.append((second, beams, loop))
    assert_equal(said[0][0].row(0), said[1][0].row(0))
    assert torch.equal(said[0][1].tokens, said[1][1].tokens)
    assert_equal(said[0][2], said[1][2])


def test_assistants_candidates_may_be_rejected():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with foveate.attach(model, Half() + Around() + Pieces()):
        plain = generate(model, inputs, 8)
        looked_up = generate(model, inputs, 8, prompt_lookup_num_tokens=3)
    assert torch.equal(plain.tokens, looked_up.tokens)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_rule_may_change_something(name):
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, "image", 0)])
    with foveate.attach(model, NoPicture()):
        blind = generate(model, inputs, 4).row(0)
        other = {k: v + 1 if "pixel_values" in k else v for k, v in inputs.items()}
        assert_unequal(blind, generate(model, other, 4).row(0))
    assert_unequal(blind, bare(name, "image", "sdpa", 0).row(0))


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_other_parts_read_what_the_kernel_is_given(name):
    model = zoo.model(name)
    inputs = zoo.pair(name, "image")
    with foveate.attach(model, FastV(keep=0.4)):
        expected = generate(model, inputs, 5)
    with foveate.attach(model, FastV(keep=0.4) + Around()):
        run = generate(model, inputs, 5)
    for b in (0, 1):
        assert_equal(run.row(b), expected.row(b))


def test_what_can_not_be_right_is_refused():
    model = zoo.model("llava")
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", 0)])
    with (
        foveate.attach(model, FastV(keep=0.4) + Around() + Pieces()),
        pytest.raises(UnsupportedCall, match="one at a time"),
    ):
        generate(model, inputs, 1)
    with foveate.attach(model, NoPicture()):
        out = model(**inputs, use_cache=True)
    more = {"input_ids": torch.tensor([[7]]), "past_key_values": out.past_key_values}
    with foveate.attach(model, Around()), pytest.raises(UnsupportedCall, match="with NoPic"):
        model(**more)


@dataclass(frozen=True, kw_only=True, repr=False)
class Stretched(Method, RulePart):
    """Columns twice as far apart."""

    slug = "stretched"

    def place(self, columns, notes):
        return 2 * columns.positions


def test_parts_that_look_ahead_see_where_columns_are_placed():
    model = zoo.model("llava")
    seen = []

    @dataclass(frozen=True, kw_only=True, repr=False)
    class Ahead(Method, LayersPart):
        slug = "ahead"

        def boundaries(self, layers):
            return (2, 3)

        def at_boundary(self, k, layers, state):
            if k == 2:
                seen.append(state.attention(state.last[:, None])[:, :, 0])
            else:
                seen.append(state.signals[DecoderAttention(2)])

        @property
        def needs(self):
            return (DecoderAttention(2),)

    with foveate.attach(model, Stretched() + Ahead()), torch.no_grad():
        model(**zoo.pair("llava", "image"))
    assert torch.allclose(seen[0], seen[1], atol=1e-5)
    with (
        foveate.attach(model, Around() + Ahead()),
        pytest.raises(UnsupportedCall, match="layer 2 unrotated"),
    ):
        model(**zoo.pair("llava", "image"))


def test_gradients_are_the_bare_models():
    model, grads = zoo.model("llava"), []
    inputs = zoo.pair("llava", "image")
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == zoo.IMAGE, -100)
    weight = model.get_decoder().layers[0].self_attn.k_proj.weight
    for method in (Half(), Half() + Around() + Pieces()):
        with foveate.attach(model, method):
            model(**inputs, labels=labels).loss.backward()
        grads.append(weight.grad.clone())
        model.zero_grad()
    assert torch.allclose(grads[0], grads[1], atol=1e-5) and grads[0].any()


@dataclass(frozen=True, kw_only=True, repr=False)
class Real(Method, RulePart):
    """In the prompt only columns that are no padding run, the others give zeros."""

    slug = "real"

    def attend(self, call: AttentionCall, proceed) -> Tensor:
        if not call.prefill:
            return proceed(call)
        valid = call.queries.valid
        index = valid.long().argsort(dim=1, descending=True, stable=True)
        index = index[:, : int(valid.sum(1).max())].sort(1).values
        real = valid.gather(1, index)
        out = proceed(call.square(index, None if bool(real.all()) else real))
        whole = out.new_zeros(*call.queries.valid.shape, *out.shape[2:])
        return whole.scatter(1, index[..., None, None].expand(out.shape), out)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_flash_kernels_are_told_what_they_can_be(name):
    def flat(module, query, key, value, attention_mask=None, scaling=None, **_):
        assert attention_mask is None or attention_mask.dim() == 2
        assert query.shape[-1] == key.shape[-1] == value.shape[-1]
        q, k = query.shape[2], key.shape[2]
        seen = torch.ones(q, k, dtype=torch.bool).tril(k - q)[None, None]
        if attention_mask is not None:
            own = torch.eye(k, dtype=torch.bool)[k - q :]
            seen = seen & attention_mask[:, None, None, -k:].bool() | own
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, scale=scaling, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("own_flash", flat)
    AttentionMaskInterface.register("own_flash", flash_attention_mask)
    model, inputs = zoo.model(name), zoo.pair(name, "image")
    heads = YOPO(
        attncut_w=None, keep=0.5, headmask=((1, 1, 1, 1), (1, 0, 0, 1), *[(1, 0, 1, 1)] * 3)
    )
    methods = VistaLLaMA(), Half() + VistaLLaMA(), Real(), HalfAt(k=2) + Real(), heads
    expected = []
    for method in methods:
        with foveate.attach(model, method):
            expected.append(generate(model, inputs, 4))
    try:
        model.set_attn_implementation({"text_config": "own_flash"})
        for method, run in zip(methods, expected, strict=True):
            with foveate.attach(model, method):
                again = generate(model, inputs, 4)
            for b in (0, 1):
                assert_equal(again.row(b), run.row(b))
        with (
            foveate.attach(model, NoPicture()),
            pytest.raises(UnsupportedCall, match="attn_implementation='sdpa'"),
        ):
            generate(model, inputs, 1)
    finally:
        model.set_attn_implementation("sdpa")
    assert_equal(expected[2].row(0), generate(model, inputs, 4).row(0))


def test_what_is_put_down_reaches_the_report():
    @dataclass(frozen=True, kw_only=True, repr=False)
    class Saves(Method, RulePart):
        slug = "saves"

        def feed(self, call, proceed):
            visual = call.columns.visual
            out = torch.empty_like(call.x)
            out[visual] = call.apply(call.x[visual], 10)
            out[~visual] = call.apply(call.x[~visual])
            call.account(visual.sum(1) * (call.cost() - call.cost(10)), visual.sum(1))
            return out

    model = zoo.model("llava")
    with foveate.attach(model, Saves()) as att:
        generate(model, zoo.pair("llava", "image"), 3)
    report = att.report
    tokens = sum(report.tokens_in)
    assert report.flops_full - report.flops == tokens * 5 * 6 * 32 * (64 - 10)
    assert report.kv_bytes_full - report.kv_bytes == tokens * 5


@dataclass(frozen=True, kw_only=True, repr=False)
class InPrompt(Method, RulePart):
    """Says how the prompt computes, and notes who asks."""

    slug = "in_prompt"
    prompt_only = True
    asked = []

    def attend(self, call: AttentionCall, proceed) -> Tensor:
        self.asked.append(call.prefill)
        return proceed(call)

    def feed(self, call: MLPCall, proceed) -> Tensor:
        self.asked.append(call.prefill)
        return proceed(call)


def test_rules_of_the_prompt_are_not_asked_behind_it():
    model = zoo.model("llava")
    method, n = InPrompt(), len(model.model.language_model.layers)
    with foveate.attach(model, method):
        generate(model, zoo.pair("llava", "image"), 4)
    assert method.asked == [True] * 2 * n
