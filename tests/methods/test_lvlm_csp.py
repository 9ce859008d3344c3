"""LVLM_CSP: lengths of its phases, its selectors, and what comes back."""

from __future__ import annotations

import pytest
import torch

import foveate
from foveate import LVLMCSP
from foveate.benchmarks.evaluation import evaluate_method
from foveate.benchmarks.loaded_model import inspect_model
from foveate.benchmarks.task_items import TaskItems
from foveate.errors import BudgetError, InvalidParameter
from foveate.families.base import raster
from foveate.ops.select import top_k
from foveate.parts import BoundaryState
from foveate.signals import Signals, VisionAttention
from tests.engine.running import close, generate, pair
from tests.families import zoo

CLS = VisionAttention(rows="auto")


def picture(h=6, w=6, text=4, frames=1):
    """A state with one item between two and `text` columns of text."""
    place = raster(frames, h, w).position
    item = torch.tensor([[-1, -1, *[0] * len(place), *[-1] * text]])
    n = item.shape[1]
    g = torch.Generator().manual_seed(0)
    seen = torch.rand(1, 3, n, generator=g).masked_fill(item[:, None] < 0, 0)
    attention = torch.rand(1, 2, n, n, generator=g)
    places = torch.full((1, n, 3), -1)
    places[0, 2 : 2 + len(place)] = place
    return BoundaryState(
        hidden=torch.zeros(1, n, 2),
        valid=torch.ones(1, n, dtype=torch.bool),
        visual=item >= 0,
        item=item,
        entered=(item >= 0).sum(1),
        last=torch.tensor([n - 1]),
        labels=None,
        attention=lambda rows: attention[:, :, rows[0]],
        signals=Signals({CLS: seen}),
        place=places,
        frame=places[..., 0],
    )


def running(method, state):
    detour = method.parts()[0].runs(0, 8, state)
    return (detour.run[0, state.visual[0]]).nonzero()[:, 0], detour


def test_the_defaults_are_an_eighth_and_a_sixteenth():
    assert LVLMCSP().bounds(32) == (8, 16)
    assert LVLMCSP().counts(576, 32) == (72, 36)
    assert [LVLMCSP().bounds(n) for n in (2, 3, 4, 5)] == [(0, 1), (1, 2), (1, 2), (1, 2)]


@pytest.mark.parametrize("keep", [0.3125, 0.5, 0.8, 1.0, 300])
@pytest.mark.parametrize("parameters", [{}, {"N_c": 100}, {"N_p": 0.125}, {"b1": 2, "b2": 5}])
def test_counts_have_the_mean_asked_for(keep, parameters):
    method, n = LVLMCSP(keep=keep, **parameters), 576
    try:
        few, end = method.counts(n, 16)
    except BudgetError:
        assert parameters and keep in (0.3125, 0.8, 1.0)
        return
    b1, b2 = method.bounds(16)
    mean = (b1 * few + (b2 - b1) * n + (16 - b2) * end) / 16
    assert mean == pytest.approx(keep * n if keep <= 1 else keep, abs=0.5)
    assert few <= n and end <= n


def test_selectors():
    state = picture()
    chosen, _ = running(LVLMCSP(N_c=5, N_p=3), state)
    scores = state.signals[CLS].mean(1)[:, state.visual[0]]
    assert torch.equal(chosen, top_k(scores, 5)[0])
    chosen, _ = running(LVLMCSP(N_c=5, N_p=3, selector="uniform"), state)
    assert chosen.tolist() == [0, 7, 14, 21, 28]
    draws = [running(LVLMCSP(N_c=5, N_p=3, selector="random", seed=s), state)[0] for s in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert all(len(d) == 5 for d in draws)


def test_every_instance_has_a_representative():
    masks = torch.zeros(2, 6, 6)
    masks[0, 0, :2] = masks[1, 2:5, 2:5] = 1
    asked = []

    def segmenter(row, item, h, w):
        asked.append((row, item, h, w))
        return masks

    method = LVLMCSP(N_c=6, N_p=3, selector="seg_first", segmenter=segmenter)
    chosen, _ = running(method, picture())
    assert asked == [(0, 0, 6, 6)] and len(chosen) == 6
    owner = torch.where(masks[0] == 1, 0, torch.where(masks[1] == 1, 1, 2)).flatten()
    assert set(owner[chosen].tolist()) == {0, 1, 2}


def test_residual_follows_the_nearest_representative():
    state = picture(frames=2, h=3, w=3)
    method = LVLMCSP(N_c=4, N_p=3, selector="random", init="residual")
    chosen, detour = running(method, state)
    place = raster(2, 3, 3).position.float()
    for i in range(18):
        away = [(place[i] - place[c]).norm().item() for c in chosen]
        nearest = chosen[away.index(min(away))]
        assert detour.follow[0, 2 + i] == 2 + nearest
    assert (detour.follow[~state.visual] == -1).all()
    assert running(LVLMCSP(N_c=4, N_p=3), state)[1].follow is None


def test_pruning_keeps_what_the_last_prompt_token_looks_at():
    state = picture()
    pruning = LVLMCSP(N_c=4, N_p=5).parts()[1]
    score = state.attention(state.last[:, None]).mean(1)[:, 0].masked_fill(~state.visual, -1)
    stays = pruning.at_boundary(4, 8, state) & state.visual
    assert stays.nonzero()[:, 1].tolist() == score[0].topk(5).indices.sort().values.tolist()
    state.labels = torch.full(state.visual.shape, -100)
    state.labels[0, -3] = 1
    score = state.attention(torch.tensor([[state.visual.shape[1] - 3]])).mean(1)[:, 0]
    score = score.masked_fill(~state.visual, -1)
    stays = pruning.at_boundary(4, 8, state) & state.visual
    assert stays.nonzero()[:, 1].tolist() == score[0].topk(5).indices.sort().values.tolist()


@pytest.mark.parametrize("init", ["embed", "residual"])
def test_phases_on_a_model(init):
    model = zoo.model("llava")
    (batch, _), _ = pair("llava")
    method = LVLMCSP(N_c=4, N_p=3, b1=2, b2=3, init=init)
    entered = []
    layers = model.get_decoder().layers
    with foveate.attach(model, method) as att:
        hooks = [
            layers[i].register_forward_pre_hook(lambda _, a: entered.append(a[0]), prepend=True)
            for i in (0, 2)
        ]
        out = model.generate(**batch, max_new_tokens=3, return_dict_in_generate=True)
        for hook in hooks:
            hook.remove()
        report = att.report
    assert report.tokens_by_layer == [[4, 4, 16, 3, 3]] and report.tokens_out == [3]
    text = report.prompt_tokens[0] - 16
    held = [layer.keys.shape[2] for layer in out.past_key_values.layers]
    assert held == [text + n + 2 for n in (4, 4, 16, 3, 3)]
    changed = (entered[0] != entered[1]).any(-1)[0]
    visual = batch["input_ids"][0] == zoo.IMAGE
    # Absent tokens come back as they entered, bit for bit, or as their representative moved.
    assert changed[visual].sum() == (4 if init == "embed" else 16) and changed[~visual].all()
    if init == "residual":
        moves = (entered[1] - entered[0])[0, visual]
        ways = (moves[:, None] - moves[None]).abs().amax(-1) < 1e-5
        assert len({tuple(w.tolist()) for w in ways}) == 4


@pytest.mark.parametrize(
    "parameters",
    [{"N_c": 1.0, "N_p": 1.0}, {"b1": 0, "N_p": 1.0}, {"N_c": 1.0, "full_last_layers": True}],
)
def test_all_everywhere_is_the_bare_model(parameters):
    model = zoo.model("llava")
    _, batch = pair("llava")
    bare = generate(model, batch, 3)
    with foveate.attach(model, LVLMCSP(**parameters)):
        assert close(generate(model, batch, 3), bare)


def test_refusals():
    for parameters, words in (
        ({"selector": "best"}, "selector='best'"),
        ({"selector": "seg_first"}, "segmenter"),
        ({"init": "zero"}, "init='zero'"),
    ):
        with pytest.raises(InvalidParameter, match=words):
            LVLMCSP(**parameters)
    with pytest.raises(InvalidParameter, match="b1=3, b2=3"):
        LVLMCSP(b1=3, b2=3).bounds(8)
    with pytest.raises(BudgetError, match="out of reach"):
        LVLMCSP(keep=0.1).counts(64, 8)
    with pytest.raises(BudgetError, match="N_c"):
        LVLMCSP(N_c=0)


@pytest.mark.slow
def test_tokens_that_come_back_beat_those_that_left_for_good():
    """Where a shape stands, with equally many tokens on average over the layers."""
    under_test = inspect_model(*foveate.mini("nano"), "nano")
    batches = TaskItems(under_test, "I2", 150).batches
    csp = evaluate_method(under_test, batches, LVLMCSP(keep=0.22, b1=1, b2=2))
    share = csp.tokens_mean / csp.tokens_in
    assert 0.2 < share < 0.23
    early = evaluate_method(under_test, batches, foveate.FasterVLM(keep=share))
    assert early.tokens_mean >= csp.tokens_mean - 0.5
    assert csp.right.mean() > early.right.mean() + 0.1
