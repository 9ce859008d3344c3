import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import foveate
from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.methods.encoders.tome import ToMe
from foveate.ops.matching import merge
from foveate.parts import BlockState
from foveate.tokens import Grid
from tests.families import zoo


def run(method, patches, blocks, class_token=True, batch=2, seed=0):
    """Token counts behind every block, and what is left of a tower that only merges."""
    g = torch.Generator().manual_seed(seed)
    n = patches + class_token
    x, size, counts = torch.randn(batch, n, 8, generator=g), torch.ones(batch, n), []
    start = x
    for i in range(blocks):
        keys = torch.randn(batch, 2, x.shape[1], 4, generator=g)
        plan = method.merge(i, blocks, BlockState(x, keys, size, class_token, patches))
        if plan is not None:
            assign, count, *share = plan
            weight = (share[0] if share else size)[..., None]
            size = merge(size[..., None], assign, count, "sum")
            x = merge(x * weight, assign, count, "sum") / (1 if share else size)
            size = size[..., 0]
        counts.append(x.shape[1] - class_token)
    return counts, start, x, size


@settings(deadline=None, max_examples=40)
@given(
    patches=st.integers(1, 80),
    blocks=st.integers(1, 8),
    class_token=st.booleans(),
    keep=st.floats(0.05, 1.0),
)
def test_the_tower_ends_with_the_budget(patches, blocks, class_token, keep):
    method = ToMe(keep=keep)
    try:
        counts, start, x, size = run(method, patches, blocks, class_token)
    except BudgetError as error:
        assert "use at least" in str(error) and method.count(Grid(1, 1, patches)) < patches / 2
        return
    assert counts[-1] == method.count(Grid(1, 1, patches, (patches,)))
    assert (size.sum(1) == patches + class_token).all()
    mass = (x * size[..., None]).sum(1)
    torch.testing.assert_close(mass, start.sum(1), atol=1e-4, rtol=1e-4)
    if class_token:
        torch.testing.assert_close(x[:, 0], start[:, 0])


def test_merging_is_even_over_the_blocks():
    counts, *_ = run(ToMe(keep=0.5), 64, 8)
    assert counts == [60, 56, 52, 48, 44, 40, 36, 32]


def test_r_gives_the_merges_of_each_block():
    assert run(ToMe(r=3), 20, 4)[0] == [17, 14, 11, 8]
    assert run(ToMe(r=(5, 0, 2)), 20, 4)[0] == [15, 15, 13, 13]
    assert run(ToMe(r=(4, -1.0)), 40, 3)[0] == [32, 28, 28]
    assert run(ToMe(r=15), 20, 3)[0] == [10, 5, 3], "never more than half"
    assert run(ToMe(r=0), 20, 3)[0] == [20, 20, 20]


@pytest.mark.parametrize("class_token", [True, False])
def test_each_kth_takes_in_the_others_once(class_token):
    counts, start, x, size = run(ToMe(kth=3), 17, 3, class_token)
    assert counts == [5, 5, 5] and ToMe(kth=3).count(Grid(1, 1, 17, (17,))) == 5
    assert (size.sum(1) == 17 + class_token).all()
    # Two patches stand behind the last group of three, and add nothing.
    mean = (x * size[..., None]).sum(1) - x[:, -1] * 2
    torch.testing.assert_close(mean, start[:, : 15 + class_token].sum(1), atol=1e-4, rtol=1e-4)
    assert run(ToMe(kth=1), 17, 3, class_token)[0] == [17, 17, 17]


def test_the_language_model_gets_one_of_each_k():
    model = zoo.model("llava")
    with foveate.attach(model, ToMe(kth=4)) as att, torch.no_grad():
        model(**zoo.batch("llava", [zoo.sample("llava", "image")]))
    full = att.report.tokens_in
    assert att.report.tokens_out == [n // 4 for n in full]


def test_all_merges_nothing():
    assert run(ToMe(keep=1.0), 12, 3)[0] == [12, 12, 12]


def test_every_view_has_its_own_budget():
    assert ToMe(keep=0.5).count(Grid(2, 8, 8, (16,) * 5, 8)) == 48
    assert ToMe(keep=5).count(Grid(4, 3, 3, (9,) * 4)) == 20


def test_what_can_not_be_is_refused():
    with pytest.raises(BudgetError, match="keep=2 .* into 4; use at least"):
        run(ToMe(keep=2), 16, 2)
    with pytest.raises(InvalidParameter, match="r=-1"):
        ToMe(r=-1)
    with pytest.raises(InvalidParameter, match="kth=3, r=2"):
        ToMe(kth=3, r=2)
    with pytest.raises(BudgetError, match="kth=17 is out of range: there are 16 patches"):
        ToMe(kth=17).budget(Grid(1, 4, 4))
    with pytest.raises(UnsupportedCall, match="use keep="):
        ToMe(r=8).budget(Grid(1, 4, 4))


def test_pairs_are_alike_by_the_mean_key_over_heads():
    g = torch.Generator().manual_seed(5)
    x, keys = torch.randn(1, 13, 8, generator=g), torch.randn(1, 4, 13, 3, generator=g)
    assign, count = ToMe(r=3).merge(0, 1, BlockState(x, keys, torch.ones(1, 13), True, 12))
    mean = keys[0].mean(0)
    # Tokens 0, 2, ... are the even ones; token 0 is the class token.
    near = {
        i: max((torch.cosine_similarity(mean[i], mean[j], 0).item(), j) for j in range(1, 13, 2))
        for i in range(2, 13, 2)
    }
    gone = sorted(near, key=lambda i: -near[i][0])[:3]
    groups = {frozenset((assign[0] == c).nonzero()[:, 0].tolist()) for c in range(count)}
    expected = {frozenset([i]) for i in range(0, 13, 2) if i not in gone}
    expected |= {frozenset([j, *(i for i in gone if near[i][1] == j)]) for j in range(1, 13, 2)}
    assert count == 10 and groups == expected


def test_every_patch_joins_the_kth_that_is_most_like_it_by_the_mean_key():
    g = torch.Generator().manual_seed(6)
    x, keys = torch.randn(1, 18, 8, generator=g), torch.randn(1, 4, 18, 3, generator=g)
    assign, count, share = ToMe(kth=3).merge(0, 2, BlockState(x, keys, torch.ones(1, 18), True, 17))
    mean = keys[0].mean(0)[1:]
    near = {
        i: max((torch.cosine_similarity(mean[i], mean[j], 0).item(), -j) for j in range(2, 15, 3))
        for i in range(15)
        if i % 3 != 2
    }
    groups = [[j, *(i for i in near if -near[i][1] == j)] for j in range(2, 15, 3)]
    found = [
        [p for p in range(17) if assign[0, p + 1] == c + 1 and share[0, p + 1] > 0]
        for c in range(5)
    ]
    assert count == 6 and assign[0, 0] == 0
    assert found == [sorted(own) for own in groups]
