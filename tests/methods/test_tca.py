"""TCA: what condensing a block leaves, and what a stream remembers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.methods.encoders.tca import TCA
from foveate.ops.coreset import coreset, farthest_from_mean
from foveate.parts import BlockState
from foveate.tokens import Grid

L, C, E = 4, 6, 5


def block(patches, class_token=True, batch=2, heads=3, seed=0, entered=None):
    """The state inside a block, with attention that sums to 1."""
    g = torch.Generator().manual_seed(seed)
    n = patches + class_token
    hidden, size = torch.randn(batch, n, C, generator=g), torch.ones(batch, n)
    seen = torch.randn(batch, heads, n, generator=g).softmax(-1)
    return BlockState(hidden, hidden[:, None], size, class_token, entered or patches, lambda: seen)


def condensed(state, plan):
    assign, count, weight = plan
    out = torch.zeros(len(assign), count, C)
    return out.scatter_add_(
        1, assign[..., None].expand(-1, -1, C), state.hidden * weight[..., None]
    )


def counts(method, patches, blocks=12, class_token=True):
    """Tokens behind every condensing layer, the class token included."""
    n, found = patches, []
    for i in range(blocks):
        plan = method.merge(i, blocks, block(n, class_token, entered=patches))
        if plan is not None:
            n = plan[1] - class_token
            found.append(plan[1])
    return found


def test_the_papers_counts():
    assert counts(TCA(delta=0.035), 196) == [182, 167, 155]
    assert counts(TCA(delta=0.1), 196) == [143, 104, 77]
    assert counts(TCA(), 196)[-1] == 77, "keep says what three layers of 0.1 leave"
    assert counts(TCA(delta=0.1, centers=0), 196) == [179, 163, 148], "EViT: 0.9, and one sum"


def test_layers_scale_with_the_depth():
    assert [TCA().layers(n) for n in (1, 2, 4, 6, 12, 24)] == [
        [0], [1], [1, 2, 3], [1, 3, 4], [3, 6, 9], [6, 12, 18],
    ]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    patches=st.integers(1, 90),
    blocks=st.integers(1, 13),
    keep=st.floats(0.01, 1.0),
    class_token=st.booleans(),
    centers=st.integers(0, 6),
)
def test_keep_is_met_exactly(patches, blocks, keep, class_token, centers):
    method = TCA(keep=keep, centers=centers)
    found = counts(method, patches, blocks, class_token)
    target = method.count(Grid(1, 1, patches, (patches,)))
    assert ([patches + class_token] + found)[-1] == target + class_token


def test_every_token_goes_somewhere():
    """Kept ones by attention, then four averages, then the sum of the rest by attention."""
    state = block(49, batch=3)
    method = TCA(delta=0.1)
    plan = assign, count, weight = method.merge(3, 12, state)
    assert count == 41 and (assign >= 0).all() and (assign[:, 0] == 0).all()
    out, seen = condensed(state, plan), state.attention().mean(1)[:, 1:]
    order = seen.argsort(dim=1, descending=True, stable=True)
    x = state.hidden[:, 1:]
    for b in range(3):
        assert torch.equal(out[b, 0], state.hidden[b, 0])
        assert torch.equal(out[b, 1:36], x[b, order[b, :35]])
        rest = order[b, 35 + 10 :]
        torch.testing.assert_close(out[b, 40], (seen[b, rest, None] * x[b, rest]).sum(0))
        for centre in range(36, 40):
            assert weight[b][assign[b] == centre].sum() == pytest.approx(1, abs=1e-5)


def test_ranks_of_heads_can_decide():
    state = block(40)
    mean, ranks = (TCA(delta=0.1, rank=r).merge(3, 12, state) for r in ("mean_attn", "head_rank"))
    assert mean[1] == ranks[1] and not torch.equal(mean[0], ranks[0])
    seen = torch.zeros(1, 2, 41)
    # One head finds patch 0 much more important, both find patch 1 the second best.
    seen[0, 0, 1:], seen[0, 1, 1:] = torch.arange(40, 0, -1), torch.arange(40, 0, -1)
    seen[0, 0, 1], seen[0, 1, 1] = 1000, 0
    state = block(40, batch=1)
    state.attention = lambda: seen
    assert TCA(delta=0.1).merge(3, 12, state)[0][0, 1] == 1
    assert TCA(delta=0.1, rank="head_rank").merge(3, 12, state)[0][0, 1] > 1


def test_coreset_weights():
    x = torch.randn(3, 20, C)
    first = farthest_from_mean(x)
    into, weight = coreset(x, 4, first)
    totals = torch.zeros(3, 4).scatter_add_(1, into, weight)
    torch.testing.assert_close(totals, torch.ones(3, 4))
    far = torch.cat([0.1 * torch.randn(1, 9, C), torch.full((1, 1, C), 100.0)], 1)
    into, weight = coreset(far, 2, torch.tensor([9]))
    alone = into[0] == into[0, 9]
    assert alone.sum() == 1 and weight[0, 9] == 1
    copies = torch.ones(1, 6, C)
    assert coreset(copies, 2, torch.tensor([0]))[1].isfinite().all()


def test_the_first_centre_can_be_drawn():
    state = block(49)
    method = TCA(delta=0.1)
    drawn = [
        method.adapter(torch.Generator().manual_seed(s)).merge(3, 12, state)[0] for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def sample(g, classes=3):
    return (
        torch.randn(classes, generator=g) * 3,
        torch.nn.functional.normalize(torch.randn(E, generator=g), dim=0),
        torch.randn(L, C, generator=g),
    )


def test_reservoir_is_bounded_sorted_and_confident():
    g = torch.Generator().manual_seed(0)
    stream = TCA(reservoir_size=2).adapter()
    for _ in range(40):
        stream.update(*sample(g))
        assert stream.rows["label"].bincount().max() <= 2
    label, entropy = stream.rows["label"], stream.rows["entropy"]
    assert label.diff().ge(0).all()
    for c in range(3):
        assert entropy[label == c].diff().ge(0).all()
    assert stream.seen == 40 and stream.anchors.shape == (3, L, C)


def test_of_two_equally_sure_samples_the_copy_goes():
    stream = TCA(reservoir_size=2).adapter()
    a, b = torch.eye(C)[0].expand(L, C), torch.eye(C)[1].expand(L, C)
    for states in (a, b, a):
        stream.insert(0, torch.tensor(0.1), torch.ones(E), states, 3)
    kept = {tuple(s[0].tolist()) for s in stream.rows["states"]}
    assert len(kept) == 2


def test_anchors_wait_for_all_classes_or_for_each():
    g = torch.Generator().manual_seed(0)
    every, each = TCA().adapter(), TCA(gate="class").adapter()
    for label in (0, 0, 1):
        _, feature, states = sample(g)
        for stream in (every, each):
            stream.insert(label, torch.tensor(0.1 * label), feature, states, 3)
        # Two of class 0 open the gate; a third class with one sample leaves anchors as they are.
        assert (every.anchors is None) == (every.seen < 2)
    torch.testing.assert_close(each.anchors[0], every.rows["states"][:2].mean(0))


def test_corrections_raise_classes_that_are_there():
    g = torch.Generator().manual_seed(0)
    stream, none = TCA().adapter(), TCA(lam=0.0).adapter()
    for _ in range(6):
        one = sample(g)
        found = stream.update(*one)
        assert none.update(*one).eq(0).all()
        there = torch.zeros(3, dtype=torch.bool)
        there[stream.rows["label"]] = True
        assert found[there].gt(0).all() and found[~there].eq(0).all()
    assert TCA(reservoir_size=0).adapter().update(*sample(g)).eq(0).all()


def test_a_tiny_scale_looks_at_the_last_layer_alone():
    g = torch.Generator().manual_seed(0)
    a, b = TCA(scale=1e-4).adapter(), TCA(scale=1e-4).adapter()
    for _ in range(5):
        logits, feature, states = sample(g)
        other = torch.cat([torch.randn(L - 1, C, generator=g), states[-1:]])
        one = a.correction(states, 3) if a.rows else None
        first, second = a.update(logits, feature, states), b.update(logits, feature, states)
        assert first.isfinite().all()
        torch.testing.assert_close(first, second)
        torch.testing.assert_close(a.correction(other, 3), a.correction(states, 3))
        assert one is None or one.isfinite().all()


def test_the_state_goes_on_elsewhere():
    g = torch.Generator().manual_seed(0)
    stream, other = TCA().adapter(), TCA().adapter()
    for _ in range(9):
        stream.update(*sample(g))
    other.load_state_dict(stream.state_dict())
    one = sample(g)
    assert torch.equal(stream.update(*one), other.update(*one))
    assert torch.equal(stream.anchors, other.anchors)
    with pytest.raises(InvalidParameter, match="state_dict"):
        other.load_state_dict({"label": torch.zeros(1)})


def test_what_can_not_be_is_refused():
    with pytest.raises(BudgetError, match="delta=0.4 keeps -"):
        TCA(delta=0.4).merge(3, 12, block(40))
    with pytest.raises(UnsupportedCall, match="use keep="):
        TCA(delta=0.1).budget(Grid(1, 4, 4))
    for wrong in ({"delta": 1.0}, {"drop_loc": (12,)}, {"drop_loc": ()}, {"centers": -1},
                  {"scale": 0.0}, {"rank": "best"}, {"gate": "open"}):  # fmt: skip
        with pytest.raises(InvalidParameter, match=next(iter(wrong))):
            TCA(**wrong)


def test_ranks_are_those_of_tokens_averaged_over_heads():
    """Patch p of a head with c smaller entries has rank c there; the mean over heads decides."""
    g = torch.Generator().manual_seed(7)
    seen = torch.rand(1, 3, 41, generator=g)
    state = block(40, batch=1)
    state.attention = lambda: seen
    assign, _, _ = TCA(delta=0.1, rank="head_rank").merge(3, 12, state)
    own = seen[0, :, 1:]
    ranks = (own[:, :, None] > own[:, None]).sum(2).float().mean(0)
    order = sorted(range(40), key=lambda p: (-ranks[p].item(), p))
    kept = 36 - 2 * 5
    assert [int((assign[0] == 1 + i).nonzero()[0, 0]) - 1 for i in range(kept)] == order[:kept]
