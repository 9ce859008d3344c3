"""YOPO against what it stands for: probabilities that are cut, neurons that are zero."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.engine.decoder import block_attention
from foveate.engine.decoder.partial_mlp import mlp_by_neurons
from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.method import Method
from foveate.methods.layers import yopo_heads
from foveate.methods.layers.tc_llava import TCLLaVA
from foveate.methods.layers.yopo import YOPO
from foveate.methods.layers.yopo_heads import HeadRatios
from foveate.parts import RulePart
from tests.engine.running import close, generate, pair
from tests.families import zoo

OFF = {"keep": 0.5, "layercut_num": 5, "attncut_w": None, "mlpcut_ratio": 1.0}
HEADS = ((1, 1, 1, 1), (1, 0, 1, 1), (0, 0, 1, 1), (0, 1, 0, 0), (1, 1, 0, 1))


@dataclass(frozen=True, kw_only=True, repr=False)
class Scaled(Method, RulePart):
    """Visual columns of the probabilities times the head mask, as the official code has it."""

    slug = "scaled"
    cut: int = 5

    def attend(self, call, proceed):
        stays = torch.tensor(HEADS[call.layer]).bool()
        shared = call.query.shape[1] // call.key.shape[1]
        key, value = (x.repeat_interleave(shared, 1) for x in (call.key, call.value))
        logits = call.query @ key.mT * call.scaling
        seen = call.seen() | ~call.queries.valid[:, None, :, None]
        probabilities = logits.masked_fill(~seen, float("-inf")).softmax(-1)
        gone = ~stays[None, :, None] | (call.layer >= self.cut)
        hidden = call.keys.visual[:, None, None] & gone[..., None]
        out = probabilities.masked_fill(hidden, 0) @ value
        rows = call.queries.visual[:, None, :, None] & ~stays[None, :, None, None]
        return out.masked_fill(rows, 0).transpose(1, 2)


@dataclass(frozen=True, kw_only=True, repr=False)
class Noise(Method, RulePart):
    """Other visual keys or values from layer 2 on."""

    slug = "noise"
    on: str = "value"

    def layers(self, n):
        return tuple(range(2, n))

    def attend(self, call, proceed):
        x = getattr(call, self.on)
        noise = call.keys.visual[:, None, :, None] * torch.linspace(-1, 1, x.shape[-1])
        return proceed(replace(call, **{self.on: x + noise}))


def run(method, name="llava", steps=4):
    model, (_, batch) = zoo.model(name), pair(name)
    with foveate.attach(model, method) as att:
        return generate(model, batch, steps), att.report


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_window_over_all_is_no_window(name):
    bare = generate(zoo.model(name), pair(name)[1], 4)
    wide = {**OFF, "attncut_w": 15}
    assert close(run(YOPO(**wide, causal_neighbors=True), name)[0], bare)
    both_ways = run(TCLLaVA(gamma=0.0), name)[0]
    assert close(run(YOPO(**wide), name)[0], both_ways) and not close(both_ways, bare)


@pytest.mark.parametrize("cut", [2, 5])
def test_zeroed_values_are_scaled_probabilities(cut):
    method = YOPO(**{**OFF, "layercut_num": cut}, headmask=HEADS, renormalize=False)
    assert close(run(method)[0], run(Scaled(cut=cut))[0])


def test_behind_the_cut_only_keys_matter():
    method = YOPO(**{**OFF, "layercut_num": 2}, renormalize=False)
    plain = run(method)[0]
    assert close(run(Noise() + method)[0], plain)
    assert not close(run(Noise(on="key") + method)[0], plain)
    dropped = YOPO(**{**OFF, "layercut_num": 2})
    out, report = run(dropped)
    assert report.tokens_by_layer == [[n, n, 0, 0, 0] for n in report.tokens_in]
    assert close(run(Noise(on="key") + dropped)[0], out) and not close(out, plain)


@pytest.mark.parametrize("name", ["llava", "glm4v"])
def test_narrow_is_the_rest_zero(name):
    mlp = zoo.model(name).get_decoder().layers[1].mlp
    width, _, narrow = mlp_by_neurons(mlp)
    x = torch.randn(7, zoo.WIDTH)
    handle = mlp.down_proj.register_forward_pre_hook(
        lambda _, args: (args[0] * (torch.arange(width) < 21),)
    )
    with torch.no_grad():
        expected = mlp(x)
        handle.remove()
        assert torch.allclose(narrow(x, 21), expected, atol=1e-5)


def test_saves_what_it_says():
    out, report = run(YOPO(**{**OFF, "mlpcut_ratio": 3.0}))
    neurons, tokens = 64 - int(64 / 3), sum(report.tokens_in)
    assert report.flops_full - report.flops == tokens * 5 * 3 * 2 * zoo.WIDTH * neurons
    model, ((one, _), _) = zoo.model("llava"), pair("llava")
    counted = []
    for method in (YOPO(**OFF), YOPO(**{**OFF, "mlpcut_ratio": 3.0})):
        with foveate.attach(model, method) as att, FlopCounterMode(display=False) as counter:
            with torch.no_grad():
                model(**one)
        counted.append((counter.get_total_flops(), att.report.flops))
    (full, told), (less, told_less) = counted
    assert full - less == told - told_less > 0
    assert not close(out, generate(zoo.model("llava"), pair("llava")[1], 4))


def test_blocks_of_rows_change_nothing_but_the_work(monkeypatch):
    method = YOPO(**{**OFF, "attncut_w": 3, "causal_neighbors": True})
    whole, report = run(method)
    assert report.flops == report.flops_full, "all keys are seen by some row of a short prompt"
    monkeypatch.setattr(block_attention, "BLOCK", 4)
    parted, less = run(method)
    assert close(parted, whole) and less.flops < report.flops
    assert not close(run(replace(method, attncut_w=5))[0], whole)


def test_votes_decide_which_heads_stay():
    ratios = torch.zeros(100, 4, 2)
    ratios[:41, 2, 0] = ratios[:40, 2, 1] = ratios[:, 3, 1] = 0.5
    measure = HeadRatios(found=[ratios[:30], ratios[30:]])
    assert measure.mask(threshold=0.2) == ((1, 1), (1, 1), (1, 0), (0, 1))
    assert measure.mask(threshold=0.6, first=0) == ((0, 0),) * 4
    YOPO(headmask=measure.mask(threshold=0.2))


def visual_ratio(attention, visual):
    """What visual keys receive of a whole map (H, Q, K) over what all others do, (H,)."""
    total = attention.sum(-2)
    return total[..., visual].sum(-1) / total[..., ~visual].sum(-1)


@dataclass(frozen=True, kw_only=True, repr=False)
class Maps(Method, RulePart):
    """Whole maps, as far as rows are real."""

    slug = "maps"
    found: tuple[list, ...] = ([],)

    def attend(self, call, proceed):
        if call.prefill:
            key = call.key.repeat_interleave(call.query.shape[1] // call.key.shape[1], 1)
            logits = (call.query @ key.mT * call.scaling).masked_fill(~call.seen(), -1e9)
            maps = logits.softmax(-1) * call.queries.valid[:, None, :, None]
            pairs = zip(maps, call.keys.visual, strict=True)
            self.found[0].append(torch.stack([visual_ratio(m, v) for m, v in pairs]))
        return proceed(call)


def test_ratios_are_measured_in_blocks(monkeypatch):
    monkeypatch.setattr(yopo_heads, "BLOCK", 5)
    measure, maps = HeadRatios(), Maps(found=([],))
    run(measure + maps)
    assert measure.ratios().shape == (2, 5, 4)
    assert torch.allclose(measure.ratios(), torch.stack(maps.found[0], 1), atol=1e-5)
    assert close(run(measure)[0], generate(zoo.model("llava"), pair("llava")[1], 4))
    assert len(measure.ratios()) == 4, "two prompts of two rows"


def test_the_cut_follows_from_the_share():
    assert [YOPO(keep=k).cut(32) for k in (0.25, 0.625, 1.0)] == [8, 20, 32]
    assert YOPO(keep=0.01).cut(32) == 1 and YOPO(layercut_num=40).cut(32) == 32
    assert YOPO(keep=1.0).layers(32) == () == YOPO(renormalize=False).boundaries(32)
    assert YOPO().boundaries(32) == (20,) and len(YOPO(renormalize=False).layers(32)) == 32


def test_refuses_what_it_can_not_be():
    with pytest.raises(BudgetError, match="keep=64"):
        YOPO(keep=64)
    wrong = {"attncut_w": 4, "layercut_num": 0, "mlpcut_ratio": 0.5}
    for name, value in wrong.items():
        with pytest.raises(InvalidParameter, match=f"{name}={value}"):
            YOPO(**{name: value})
    with pytest.raises(InvalidParameter, match="2 rows, but the model has 5"):
        YOPO(headmask=((1,), (1,))).layers(5)
    model = zoo.model("llava")
    model.get_decoder().layers[0].mlp.gate_proj.__class__ = type("Other", (torch.nn.Linear,), {})
    try:
        with pytest.raises(UnsupportedCall, match="MLP with Other layers"):
            run(YOPO())
    finally:
        model.get_decoder().layers[0].mlp.gate_proj.__class__ = torch.nn.Linear
