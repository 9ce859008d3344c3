"""VideoLLM-MoD: choices per frame, gates, and how little comes back from skipping."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import foveate
from foveate import VideoLLMMoD
from foveate.errors import BudgetError, InvalidParameter
from foveate.ops.draws import draws
from foveate.parts import BoundaryState
from foveate.signals import Signals
from foveate.trained import lent, untrained
from tests.engine.running import close, generate, pair
from tests.families import zoo


def stream(frames=(6, 6, 4), seed=0, rows=1, width=8):
    """One video of frames of these sizes between two and three columns of text."""
    step = [f for f, n in enumerate(frames) for _ in range(n)]
    frame = torch.tensor([[-1, -1, *step, -1, -1, -1]] * rows)
    n = frame.shape[1]
    hidden = torch.randn(rows, n, width, generator=torch.Generator().manual_seed(seed))
    return BoundaryState(
        hidden=hidden,
        valid=torch.ones(rows, n, dtype=torch.bool),
        visual=frame >= 0,
        item=torch.where(frame >= 0, 0, -1),
        entered=(frame >= 0).sum(1),
        last=torch.full((rows,), n - 1),
        labels=None,
        attention=None,
        signals=Signals({}),
        frame=frame,
    )


def ran(method, state, layer=1, layers=32):
    return [
        int((method.runs(layer, layers, state).run & state.visual & (state.frame == f)).sum())
        for f in range(int(state.frame.max()) + 1)
    ]


def test_placements():
    def at(placement, layers=8):
        return VideoLLMMoD(placement=placement).layers(layers)

    assert at("interleaved") == (1, 3, 5, 7) and at("all") == tuple(range(8))
    assert at("deep") == (4, 5, 6, 7) and at("interleaved-deep") == (5, 7)


@pytest.mark.parametrize("selector", ["learned", "random", "uniform"])
@pytest.mark.parametrize(
    ("ratio", "counts"), [(0.2, [1, 1, 1]), (0.5, [3, 3, 2]), (1.0, [6, 6, 4])]
)
def test_every_frame_has_its_share(selector, ratio, counts):
    method = VideoLLMMoD(weights="random", keep_ratio=ratio, selector=selector)
    assert ran(method, stream()) == counts


def test_the_router_takes_the_best_of_each_frame_and_is_the_gate():
    method, state = VideoLLMMoD(weights="random", keep_ratio=0.34), stream()
    router = method.module(state.hidden, layers=32)["1"]
    score = (state.hidden @ router.weight.T)[..., 0]
    detour = method.runs(1, 32, state)
    for f, k in ((0, 2), (1, 2), (2, 1)):
        own = (state.frame[0] == f).nonzero()[:, 0]
        best = own[score[0, own].topk(k).indices.sort().values]
        assert (detour.run[0] & (state.frame[0] == f)).nonzero()[:, 0].tolist() == best.tolist()
    assert torch.allclose(detour.gate, score)
    soft = replace(method, gate="sigmoid").runs(1, 32, state)
    assert torch.allclose(soft.gate, score.sigmoid()) and torch.equal(soft.run, detour.run)
    assert router.bias is None


@pytest.mark.parametrize("selector", ["learned", "random", "uniform"])
def test_later_frames_change_no_choice(selector):
    method = VideoLLMMoD(weights="random", keep_ratio=0.4, selector=selector)
    short, long = stream((6, 5)), stream((6, 5, 7, 3))
    long.hidden[:, :13] = short.hidden[:, :13]
    before, behind = (method.runs(3, 32, s).run[:, 2:13] for s in (short, long))
    assert torch.equal(before, behind)


def test_keep_is_the_mean_over_layers():
    state, n = stream(), 16
    sizes = torch.tensor([[n]])
    assert VideoLLMMoD().ratios(sizes, 32).item() == pytest.approx(0.2)
    assert VideoLLMMoD(keep=12).ratios(sizes, 32).item() == pytest.approx(0.5)
    assert VideoLLMMoD(keep=0.75, placement="all").ratios(sizes, 5).item() == pytest.approx(0.75)
    assert VideoLLMMoD(keep=1.0, weights="random").runs(1, 32, state) is None
    with pytest.raises(BudgetError, match="placement='all'"):
        VideoLLMMoD(keep=0.4, weights="random").runs(1, 32, state)


def test_refusals():
    for name in ("placement", "selector", "gate"):
        with pytest.raises(InvalidParameter, match=f"{name}='other'"):
            VideoLLMMoD(**{name: "other"})
    with pytest.raises(BudgetError, match="keep_ratio"):
        VideoLLMMoD(keep_ratio=0.0)


def test_a_gate_of_one_for_all_is_the_bare_model():
    model = zoo.model("llava")
    _, batch = pair("llava")
    bare = generate(model, batch, 3)
    for selector in ("random", "uniform"):
        with foveate.attach(model, VideoLLMMoD(keep_ratio=1.0, selector=selector)):
            assert close(generate(model, batch, 3), bare)


def test_caches_hold_text_and_k_entries_of_each_frame():
    model = zoo.model("llava_onevision")
    batch = zoo.batch("llava_onevision", [zoo.sample("llava_onevision", "video")])
    with foveate.attach(model, VideoLLMMoD(weights="random", keep_ratio=0.2)) as att:
        out = model.generate(**batch, max_new_tokens=2, return_dict_in_generate=True)
        report = att.report
    frame = report.traces[0].layout.step
    few = sum(max(1, round(0.2 * n)) for n in frame.bincount().tolist())
    n = report.tokens_in[0]
    assert report.tokens_by_layer == [[n, few, n, few, n]] and report.tokens_out == [n]
    text = report.prompt_tokens[0] - n
    held = [layer.keys.shape[2] for layer in out.past_key_values.layers]
    assert held == [text + k + 1 for k in report.tokens_by_layer[0]]


def test_flops_of_mod_layers_fall_with_the_ratio():
    model = zoo.model("llava_onevision")
    batch = zoo.batch("llava_onevision", [zoo.sample("llava_onevision", "video")])
    flops = []
    for ratio in (0.25, 0.5, 0.75, 1.0):
        method = VideoLLMMoD(keep_ratio=ratio, selector="uniform")
        with foveate.attach(model, method) as att, torch.no_grad():
            model(**batch)
        flops.append(att.report.flops)
    assert flops == sorted(flops) and len(set(flops)) == 4 and flops[-1] == att.report.flops_full


def test_later_pictures_change_no_earlier_logit():
    model, sample = zoo.model("llava"), zoo.sample("llava", "image")
    one = zoo.batch("llava", [sample])
    ids = torch.cat([one["input_ids"]] * 2, 1)
    two = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.cat([one["pixel_values"], one["pixel_values"] + 1]),
    }
    with foveate.attach(model, VideoLLMMoD(weights="random", keep_ratio=0.3)), torch.no_grad():
        alone, both = model(**one).logits, model(**two).logits
    assert torch.allclose(both[:, : alone.shape[1]], alone, atol=1e-5)


def test_routers_get_gradients():
    model = zoo.model("llava")
    _, batch = pair("llava")
    labels = batch["input_ids"].masked_fill(batch["input_ids"] == zoo.IMAGE, -100)
    method = VideoLLMMoD(weights="random", keep_ratio=0.3)
    routers = untrained(method, 0, width=zoo.WIDTH, layers=5)
    with lent("videollm_mod", routers), foveate.attach(model, method):
        model(**batch, labels=labels).loss.backward()
    model.zero_grad()
    assert all(p.grad.abs().max() > 0 for p in routers.parameters()) and len(routers) == 2


def test_skipping_layers_and_leaving_early():
    model = zoo.model("llava")
    (batch, _), _ = pair("llava")
    for placement, lengths in (("interleaved", [16, 0, 16, 0, 16]), ("deep", [16, 16, 0, 0, 0])):
        method = VideoLLMMoD(selector="skip", placement=placement)
        with foveate.attach(model, method) as att, torch.no_grad():
            model(**batch)
        assert att.report.tokens_by_layer == [lengths]


def test_draws_depend_on_their_place_alone():
    place = torch.arange(20000)
    x = draws(place, 3)
    assert torch.equal(x[:100], draws(place[:100], 3)) and not torch.equal(x, draws(place, 4))
    counts = torch.histc(x.float(), 10, 0, 1)
    assert (counts / 2000 - 1).abs().max() < 0.1
    assert abs(float(torch.corrcoef(torch.stack([x[:-1], x[1:]]))[0, 1])) < 0.03


@pytest.mark.parametrize("selector", ["learned", "random", "uniform"])
@pytest.mark.parametrize(
    ("ratio", "counts"), [(0.45, [3, 3, 2]), (0.3, [2, 2, 1]), (0.65, [4, 4, 3]), (0.05, [1, 1, 1])]
)
def test_capacity_is_rounded_to_the_nearest_count(selector, ratio, counts):
    """Of 2.7 and 1.8; 1.8 and 1.2; 3.9 and 2.6; never none."""
    method = VideoLLMMoD(weights="random", keep_ratio=ratio, selector=selector)
    assert ran(method, stream()) == counts
