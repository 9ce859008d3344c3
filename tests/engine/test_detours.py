"""Columns that go around a layer: gates, followers, caches, figures and what parts see of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

import foveate
from foveate.families.base import raster
from foveate.families.specials import class_before, newline_behind
from foveate.method import Method
from foveate.parts import Detour, DetourPart, LayersPart, RulePart
from foveate.signals import DecoderAttention, DecoderHeads, DecoderKeys, DecoderTransition
from tests.engine.running import close, generate, pair
from tests.families import zoo
from tests.families.halves import Half, HalfAround, HalfAt


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Told(Method, DetourPart):
    """Goes around as it is told, and keeps what it saw."""

    slug = "told"
    layer: int = 1
    run: Tensor | None = None
    gate: Tensor | None = None
    follow: Tensor | None = None
    seen: list = field(default_factory=list)

    def layers(self, layers):
        return (self.layer,)

    def runs(self, i, layers, state):
        self.seen.append(state)
        run = state.valid if self.run is None else self.run
        return Detour(run, self.gate, self.follow)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Reads(Method, LayersPart):
    """Drops nothing, keeps what it saw at boundary k."""

    slug = "reads"
    k: int = 2
    need: object = None
    seen: list = field(default_factory=list)

    @property
    def needs(self):
        return () if self.need is None else (self.need,)

    def boundaries(self, layers):
        return (self.k,)

    def at_boundary(self, k, layers, state):
        self.seen.append(state)


def streams(model, method, batch, layer=1):
    """What enters and what leaves a layer, all columns."""
    before, behind = [], []
    layers = model.get_decoder().layers
    with foveate.attach(model, method), torch.no_grad():
        enters = layers[layer].register_forward_pre_hook(
            lambda _, args: before.append(args[0]), prepend=True
        )
        leaves = layers[layer + 1].register_forward_pre_hook(
            lambda _, args: behind.append(args[0]), prepend=True
        )
        model(**batch)
    enters.remove()
    leaves.remove()
    return before[0], behind[0]


def one(name="llava"):
    batch = zoo.batch(name, [zoo.sample(name, "image")])
    visual = batch["input_ids"] == zoo.IMAGE
    return zoo.model(name), batch, visual


def test_gates_scale_the_residual_branch_of_visual_columns():
    model, batch, visual = one()
    gate = torch.rand(visual.shape)
    run = torch.rand(visual.shape) < 0.5
    x, plain = streams(model, Told(run=run), batch)
    same, gated = streams(model, Told(run=run, gate=gate), batch)
    assert torch.equal(x, same)
    away = visual & ~run
    assert torch.equal(plain[away], x[away]) and torch.equal(gated[away], x[away])
    assert torch.equal(gated[~visual], plain[~visual]), "text runs at full strength"
    on = visual & run
    expected = x[on] + gate[on][:, None] * (plain[on] - x[on])
    assert torch.allclose(gated[on], expected, atol=1e-6)
    ones = Told(run=run, gate=torch.ones(visual.shape))
    assert torch.equal(streams(model, ones, batch)[1], plain)


def test_a_follower_takes_over_the_update_of_another_column():
    model, batch, visual = one()
    columns = visual[0].nonzero()[:, 0]
    run = ~visual.clone()
    run[0, columns[::2]] = True
    follow = torch.full(visual.shape, -1)
    follow[0, columns[1::2]] = columns[::2]
    follow[0, columns[-1]] = -1
    x, out = streams(model, Told(run=run, follow=follow), batch)
    led, leaders = columns[1:-1:2], columns[:-2:2]
    update = out[0, leaders] - x[0, leaders]
    assert torch.equal(out[0, led], x[0, led] + update)
    assert torch.equal(out[0, columns[-1]], x[0, columns[-1]])


def test_gates_get_gradients_and_columns_that_go_around_pass_them_on():
    model, batch, visual = one()
    gate = torch.ones(visual.shape, requires_grad=True)
    run = ~visual.clone()
    run[0, visual[0].nonzero()[::3, 0]] = True
    method = Told(run=run, gate=gate)
    labels = batch["input_ids"].masked_fill(visual, -100)
    with foveate.attach(model, method):
        model(**batch, labels=labels).loss.backward()
    model.zero_grad()
    grad = gate.grad
    assert (grad[visual & run] != 0).all() and not grad[~(visual & run)].any()
    assert method.seen[0].hidden.requires_grad


@pytest.mark.parametrize("name", ["llava", "qwen3_vl"])
def test_gradient_checkpointing_changes_no_gradient(name):
    model, batch, visual = one(name)
    labels = batch["input_ids"].masked_fill(visual, -100)
    found = []
    model.train()
    with foveate.attach(model, HalfAround(at=(0, 1), gate=0.7)):
        for checkpointed in (False, True):
            if checkpointed:
                model.gradient_checkpointing_enable()
            model(**batch, labels=labels, use_cache=False).loss.backward()
            found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
            model.zero_grad()
    model.gradient_checkpointing_disable()
    model.eval()
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    assert all(torch.allclose(g, found[1][n], atol=1e-5) for n, g in found[0].items())


def test_all_running_is_bit_for_bit_bare():
    model, batch, _ = one("qwen3_vl")
    bare = generate(model, batch, 4)
    with foveate.attach(model, HalfAround(keep=1.0, at=(0, 1, 2))):
        run = generate(model, batch, 4)
    assert torch.equal(run[1], bare[1])


def test_caches_and_figures_are_those_of_the_columns_that_ran():
    model, batch, _ = one()
    n = batch["input_ids"].shape[1]
    with foveate.attach(model, Half() + HalfAround(at=(0, 2))) as att:
        out = model.generate(**batch, max_new_tokens=4, return_dict_in_generate=True)
        report = att.report
    assert report.tokens_by_layer == [[4, 8, 4, 8, 8]]
    assert report.tokens_out == [8] and report.kept[0].tolist() == list(range(0, 16, 2))
    assert report.prompt_tokens == [n - 8]
    held = [layer.keys.shape[2] for layer in out.past_key_values.layers]
    assert held == [n - 16 + k + 3 for k in report.tokens_by_layer[0]]
    assert report.kv_bytes == sum(n - 16 + k for k in (4, 8, 4, 8, 8)) * 2 * 2 * 8 * 4
    assert report.flops < report.flops_full


def test_two_talks_may_interleave():
    model = zoo.model("llava")
    batches, _ = pair("llava")
    with foveate.attach(model, HalfAround(at=(0, 3))), torch.no_grad():
        alone = [generate(model, b, 4)[0][0].tolist() for b in batches]
        talks = [model(**b, use_cache=True) for b in batches]
        said: list[list[int]] = [[], []]
        for _ in range(4):
            for i, talk in enumerate(talks):
                logits = talk.logits[0, -1].clone()
                logits[[zoo.IMAGE, zoo.VIDEO]] = -torch.inf
                said[i].append(int(logits.argmax()))
                new = torch.tensor([said[i][-1:]])
                talks[i] = model(input_ids=new, past_key_values=talk.past_key_values)
    assert said == alone


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_beams(name):
    model = zoo.model(name)
    alone, batch = pair(name)
    with foveate.attach(model, HalfAround(at=(0, 1))):
        singles = [model.generate(**b, max_new_tokens=4, num_beams=2) for b in alone]
        rows = model.generate(**batch, max_new_tokens=4, num_beams=2)
    assert [r[-4:].tolist() for r in rows] == [s[0, -4:].tolist() for s in singles]


def test_several_parts_let_run_what_all_let_run():
    model, batch, visual = one()
    a, b = torch.rand(visual.shape) < 0.6, torch.rand(visual.shape) < 0.6
    gates = torch.rand(2, *visual.shape)
    _, both = streams(model, Told(run=a, gate=gates[0]) + Told(run=b, gate=gates[1]), batch)
    _, expected = streams(model, Told(run=a & b, gate=gates.prod(0)), batch)
    assert torch.allclose(both, expected, atol=1e-6)


def test_columns_that_were_not_there_got_no_attention():
    model, batch, visual = one()
    reads = Reads(need=DecoderAttention(1))
    with foveate.attach(model, HalfAround(at=(1,)) + reads), torch.no_grad():
        model(**batch)
    seen = reads.seen[0].signals[DecoderAttention(1)][0]
    rank = visual[0].long().cumsum(0) - 1
    away = visual[0] & (rank % 2 == 0)
    assert not seen[:, away].any() and (seen[:, ~away] > 0).all()
    assert torch.allclose(seen.sum(-1), torch.ones(len(seen)), atol=1e-5)


@pytest.mark.parametrize("need", [DecoderKeys(1), DecoderTransition(1), DecoderHeads()])
def test_keys_that_are_not_there_are_refused(need):
    model, batch, _ = one()
    method = HalfAround(at=(1,)) + Reads(need=need)
    with foveate.attach(model, method), pytest.raises(foveate.UnsupportedCall, match="layer 1"):
        model(**batch)
    with foveate.attach(model, HalfAround(at=(2,)) + Reads(need=need)), torch.no_grad():
        model(**batch)


def test_layers_that_do_not_exist_are_refused():
    with pytest.raises(foveate.errors.InvalidParameter, match=r"has 5 decoder layers \(0-4\)"):
        foveate.attach(zoo.model("llava"), HalfAround(at=(5,)))


def test_parts_see_places_and_frames():
    model = zoo.model("llava_onevision")
    batch = zoo.batch("llava_onevision", [zoo.sample("llava_onevision", "video")])
    reads = Reads()
    with foveate.attach(model, Half() + HalfAt(k=1) + reads) as att, torch.no_grad():
        model(**batch)
    state, trace = reads.seen[0], att.report.traces[0]
    visual = state.visual[0]
    position = trace.layout.position[trace.index]
    assert torch.equal(state.place[0, visual], position)
    assert torch.equal(state.frame[0, visual], trace.layout.step[trace.index])
    assert (state.place[0, ~visual] == -1).all() and (state.frame[0, ~visual] == -1).all()
    assert len(state.frame[0, visual].unique()) > 1
    image = zoo.batch("llava_next", [zoo.sample("llava_next", "image")])
    with foveate.attach(zoo.model("llava_next"), reads), torch.no_grad():
        zoo.model("llava_next")(**image)
    state = reads.seen[1]
    assert (state.frame[state.visual] == 0).all(), "tiles are no frames"
    assert state.place[state.visual][:, 0].unique().tolist() == [-1, 0, 1]


def test_special_tokens_belong_to_the_patch_behind_them():
    assert raster(2, 1, 2).step.tolist() == [0, 0, 1, 1]
    assert class_before(raster(2, 1, 2), 2).step.tolist() == [0, 0, 0, 1, 1, 1]
    assert newline_behind(raster(2, 1, 2)).step.tolist() == [0, 0, 1, 1, 1]


def test_detaching_leaves_no_trace():
    model, batch, _ = one()
    bare = generate(model, batch, 3)

    def hooks():
        return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]

    before = hooks()
    with foveate.attach(model, HalfAround(at=(0, 2))):
        assert not close(generate(model, batch, 3), bare)
    assert torch.equal(generate(model, batch, 3)[1], bare[1])
    assert hooks() == before


@dataclass(frozen=True, kw_only=True, repr=False)
class Passes(Method, RulePart):
    """A rule that changes nothing; it is told of exactly the columns that attend."""

    slug = "passes"

    def attend(self, call, proceed):
        assert call.queries.valid.shape[1] == call.query.shape[2]
        assert call.keys.valid.shape[1] == call.key.shape[2]
        return proceed(call)


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_rules_hold_for_the_columns_that_run(name):
    model = zoo.model(name)
    _, batch = pair(name)
    with foveate.attach(model, HalfAround(at=(0, 1))):
        expected = generate(model, batch, 3)
    with foveate.attach(model, HalfAround(at=(0, 1)) + Passes()) as att:
        assert close(generate(model, batch, 3), expected)
        assert att.report.tokens_by_layer[0][0] < att.report.tokens_in[0]
