import pytest
import torch

import foveate
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import from_dict
from foveate.methods.layers.base import ratios_of_share
from foveate.methods.tokens.visiondrop import VisionDrop
from foveate.ops.attention import Heads, received_within
from foveate.ops.contextual import dominant_contextual, joining_weights
from foveate.tokens import Grid
from tests.engine.running import pair
from tests.families import zoo
from tests.methods.test_layers import boundary

PAPER = ((42, 6), (30, 5), (22, 4), (16, 3))


def with_heads(state, seed=0):
    g = torch.Generator().manual_seed(seed)
    b, n = state.visual.shape
    query, key = (torch.randn(b, h, n, 4, generator=g) for h in (4, 2))
    heads = Heads(query, key, 0.5, state.valid)
    state.heads = lambda: heads
    return heads


def test_the_papers_budgets_follow_from_its_mean():
    method = VisionDrop()
    assert method.count(Grid(1, 24, 24, (576,))) == 48
    assert method._contextual(48) == 6
    part = method.parts()[1]
    ratios = ratios_of_share(method.share(48, 1), part.boundaries(32), 32)
    assert part.boundaries(32) == (8, 16, 24)
    totals = [round(48 * r) for r in ratios]
    assert [part._split(8, 32, n) for n in totals] == [*PAPER[1:]]


def test_other_counts_are_told_by_hand():
    method = VisionDrop(dominant=42, contextual=6, image_token_list=[list(p) for p in PAPER[1:]])
    assert method.count(Grid(1, 24, 24, (576,))) == 48
    assert method.count(Grid(2, 24, 24, (576,) * 2)) == 96
    assert from_dict(method.to_dict()) == method
    with pytest.raises(BudgetError, match="dominant=42"):
        method.count(Grid(1, 6, 6, (36,)))
    with pytest.raises(InvalidParameter, match="3 pairs, but tokens are pruned before 1"):
        method.parts()[1].boundaries(2)
    with pytest.raises(InvalidParameter, match="up to 7"):
        VisionDrop(layer_list=(4, 8)).parts()[1].boundaries(8)
    for parameters in ({"layer_list": (3, 3)}, {"dominant": 0}, {"image_token_list": ((0, 3),)}):
        with pytest.raises(InvalidParameter, match=next(iter(parameters))):
            VisionDrop(**parameters)


def test_each_picture_keeps_its_own():
    """Row 1 has two pictures: nothing of one may end up in the other."""
    state = boundary()
    heads = with_heads(state)
    merge = (
        VisionDrop(layer_list=(1,), image_token_list=((2, 1),)).parts()[1].at_boundary(1, 4, state)
    )
    columns = torch.arange(13)
    score = received_within(heads, state.item)
    for b, number in ((0, 0), (1, 0), (1, 1)):
        own = columns[state.item[b] == number]
        kept = own[merge.into[b, own] == own]
        kept = kept[merge.place[b, kept].argsort(stable=True)]
        best = own[score[b, own].argsort(descending=True)[:2]].sort().values
        assert kept[:2].tolist() == best.tolist() and len(kept) == 3
        joined = own[(merge.into[b, own] == kept[2]) & (own != kept[2])]
        assert len(joined) == len(own) - 3
        assert torch.allclose(merge.weight[b, joined].sum(), torch.ones(()))
    assert (merge.into[2] == columns).all()


def test_a_contextual_token_is_its_target_plus_the_mean_of_what_joined():
    g = torch.Generator().manual_seed(0)
    x, score, keys = (torch.randn(2, 20, *s, generator=g) for s in ((6,), (), (4,)))
    group, at = dominant_contextual(score, keys, 7, 3)
    assert (group >= 0).all() and at.shape == (2, 10)
    weight, even = joining_weights(group, at), joining_weights(group, at, mean=True)
    for b in range(2):
        for new in range(10):
            held = (group[b] == new).nonzero()[:, 0]
            joined = held[held != at[b, new]]
            total = (x[b, held] * weight[b, held, None]).sum(0)
            mean = x[b, joined].mean(0) if len(joined) else 0
            assert torch.allclose(total, x[b, at[b, new]] + mean, atol=1e-6)
            assert torch.allclose((x[b, held] * even[b, held, None]).sum(0), x[b, held].mean(0))


def test_the_question_behind_a_picture_chooses_nothing():
    model = zoo.model("llava")
    batch = zoo.batch("llava", [zoo.sample("llava", "image")])
    kept = []
    for shift in (0, 1):
        ids = batch["input_ids"].clone()
        ids[:, -2:] = 5 + shift
        with foveate.attach(model, VisionDrop(keep=0.4)) as att, torch.no_grad():
            model(**{**batch, "input_ids": ids})
        kept.append(att.report.kept[0])
    assert torch.equal(*kept)


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl"])
@pytest.mark.parametrize("keep", [0.4, 0.8])
def test_the_mean_over_layers_is_what_was_asked_for(name, keep):
    model = zoo.model(name)
    (one, _), _ = pair(name)
    with foveate.attach(model, VisionDrop(keep=keep)) as att, torch.no_grad():
        model(**one)
    held, n = att.report.tokens_by_layer[0], att.report.traces[0].layout.grid.n
    assert held == sorted(held, reverse=True)
    assert sum(held) / len(held) == pytest.approx(keep * n, abs=1 + 0.1 * n * (name != "llava"))


def test_tokens_join_by_the_mean_key_over_heads():
    state = boundary()
    heads = with_heads(state, seed=3)
    part = VisionDrop(layer_list=(1,), image_token_list=((1, 3),)).parts()[1]
    merge = part.at_boundary(1, 4, state)
    keys = heads.key.mean(1)
    for b, number in ((0, 0), (1, 0), (1, 1)):
        own = (state.item[b] == number).nonzero()[:, 0]
        score = received_within(heads, state.item)[b, own]
        rest = [i for i in own.tolist() if i != own[score.argmax()]]
        targets = rest[:: max(1, len(rest) // 3)][:3]
        for i in set(rest) - set(targets):
            alike = [torch.cosine_similarity(keys[b, i], keys[b, t], 0).item() for t in targets]
            assert merge.into[b, i] == targets[alike.index(max(alike))]
