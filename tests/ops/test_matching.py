import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.ops.matching import (
    above,
    best_of_batch,
    bipartite_soft_matching,
    kth_bipartite_soft_matching,
    merge,
    merge_chosen,
    next_merges,
    pair_up,
    schedule,
    spread,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_groups(metric, r, class_token):
    """Members of every new token by the rule as it is told, in order."""
    n = len(metric)
    unit = metric / metric.norm(dim=-1, keepdim=True)
    edges = []
    for i in range(2 if class_token else 0, n, 2):
        likeness = [float(unit[i] @ unit[j]) for j in range(1, n, 2)]
        j = max(range(len(likeness)), key=likeness.__getitem__)
        edges.append((likeness[j], i, 2 * j + 1))
    edges.sort(key=lambda e: -e[0])
    alone = [i for _, i, _ in edges[r:]]
    if class_token:
        alone = sorted([0, *alone])
    groups = [[i] for i in alone]
    for j in range(1, n, 2):
        groups.append(sorted([j, *(i for _, i, to in edges[:r] if to == j)]))
    return groups


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 21),
    r=st.integers(0, 12),
    class_token=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_matching_equals_the_slow_version(n, r, class_token, seed):
    metric = random(2, n, 5, seed=seed)
    assign, count = bipartite_soft_matching(metric, r, class_token)
    done = min(r, (n - class_token) // 2)
    assert count == n - done
    if done:
        for b in range(2):
            groups = [(assign[b] == new).nonzero()[:, 0].tolist() for new in range(count)]
            assert groups == slow_groups(metric[b], done, class_token)
    else:
        assert torch.equal(assign, torch.arange(n).expand(2, n))


@settings(deadline=None, max_examples=30)
@given(n=st.integers(4, 20), r=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_mass_and_class_token_survive(n, r, seed):
    x, size = random(1, n, 4, seed=seed), random(1, n, 1, seed=seed + 1).abs() + 0.5
    assign, count = bipartite_soft_matching(x, r, class_token=True)
    sizes = merge(size, assign, count, "sum")
    merged = merge(x * size, assign, count, "sum") / sizes
    torch.testing.assert_close(sizes.sum(1), size.sum(1))
    torch.testing.assert_close((merged * sizes).sum(1), (x * size).sum(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(merged[:, 0], x[:, 0])
    assert sizes[0, 0] == size[0, 0]


def test_both_special_tokens_stay_first_and_alone():
    x = random(2, 13, 4)
    assign, count = bipartite_soft_matching(x, 4, class_token=True, distill_token=True)
    assert count == 9
    merged = merge(x, assign, count)
    assert torch.equal(merged[:, :2], x[:, :2])
    assert (assign.unique(dim=1).amax(1) == count - 1).all() and (assign >= 0).all()


def test_equal_tokens_keep_their_value():
    x = torch.ones(1, 8, 3)
    assign, count = bipartite_soft_matching(x, 4)
    torch.testing.assert_close(merge(x, assign, count), torch.ones(1, 4, 3))


def test_kth_merges_all_into_the_last_of_each_group():
    x = random(2, 11, 4)
    assign, count = kth_bipartite_soft_matching(x, 3)
    assert count == 3
    assert assign[:, [2, 5, 8]].tolist() == [[0, 1, 2]] * 2
    assert (assign[:, 9:] == -1).all() and (assign[:, :9] >= 0).all()
    takers = x[:, [2, 5, 8]]
    likeness = torch.cosine_similarity(x[:, :9, None], takers[:, None], dim=-1)
    others = [0, 1, 3, 4, 6, 7]
    assert torch.equal(assign[:, others], likeness.argmax(2)[:, others])


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_merge_reduces_members(mode):
    x = random(1, 5, 3)
    assign = torch.tensor([[1, 0, -1, 1, 1]])
    members = x[0, [0, 3, 4]]
    expected = {"mean": members.mean(0), "sum": members.sum(0)}[mode]
    out = merge(x, assign, 2, mode)
    torch.testing.assert_close(out[0, 1], expected)
    torch.testing.assert_close(out[0, 0], x[0, 1])


def test_schedules():
    assert schedule(8, 3) == [8, 8, 8]
    assert schedule((5, 4), 4) == [5, 4, 0, 0]
    assert schedule((5, 4, 3), 2) == [5, 4]
    assert schedule((8, -1.0), 5) == [16, 12, 8, 4, 0]
    assert schedule((8, 1.0), 5) == [0, 4, 8, 12, 16]
    assert schedule((8, 0.0), 1) == [8]


@settings(deadline=None, max_examples=200)
@given(n=st.integers(1, 600), blocks=st.integers(1, 30), data=st.data())
def test_even_merging_reaches_its_target(n, blocks, data):
    target = data.draw(st.integers(1, n))
    least = n
    for _ in range(blocks):
        least -= least // 2
    left, merges = n, []
    for i in range(blocks):
        r = next_merges(left, target, blocks - i)
        if r is None:
            assert i == 0 and target < least
            return
        assert 0 <= r <= left // 2
        merges.append(r)
        left -= r
    assert left == target
    assert all(a >= b for a, b in zip(merges, merges[1:], strict=False))
    if not any(r == half for r, half in zip(merges, _halves(n, merges), strict=True)):
        assert max(merges) - min(merges) <= 1


def _halves(n, merges):
    for r in merges:
        yield n // 2
        n -= r


def ragged(lengths, seed, c=5):
    """Metrics (B, N, C) of rows of different length, and which entries are real."""
    n = max(lengths)
    valid = torch.arange(n) < torch.tensor(lengths)[:, None]
    return random(len(lengths), n, c, seed=seed), valid


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 15), min_size=1, max_size=4),
    class_token=st.booleans(),
    threshold=st.floats(-1.1, 1.0),
    most=st.integers(0, 8) | st.none(),
    ascending=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_rows_of_any_length_merge_as_they_do_alone(
    lengths, class_token, threshold, most, ascending, seed
):
    metric, valid = ragged(lengths, seed)

    def plan(metric, valid):
        half = (valid.sum(1, keepdim=True) - int(class_token)) // 2
        half = half if most is None else half.clamp(max=most)
        best, partner = pair_up(metric, class_token, valid)
        chosen = above(best, threshold, half)
        assert (chosen.sum(1, keepdim=True) <= half).all()
        return merge_chosen(chosen, best, partner, valid, ascending or class_token)

    assign, count = plan(metric, valid)
    assert (assign[~valid] == -1).all() and int(assign.max()) + 1 == count
    for b, n in enumerate(lengths):
        alone, own = plan(metric[b : b + 1, :n], valid[b : b + 1, :n])
        assert torch.equal(alone[0], assign[b, :n])
        assert torch.equal(alone.unique(), torch.arange(own)), "numbered without gaps"


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(2, 20), r=st.integers(1, 9), class_token=st.booleans(), seed=st.integers(0, 99)
)
def test_a_threshold_behind_the_r_best_pairs_merges_these(n, r, class_token, seed):
    metric = random(1, n, 5, seed=seed)
    valid = torch.ones(1, n, dtype=torch.bool)
    best, partner = pair_up(metric, class_token, valid)
    ranked = best[0].sort(descending=True).values.tolist() + [float("-inf")]
    cut = ranked[min(r, (n - class_token) // 2)]
    plan = merge_chosen(above(best, cut, n), best, partner, valid, class_token)
    expected = bipartite_soft_matching(metric, r, class_token)
    assert plan[1] == expected[1] and torch.equal(plan[0], expected[0])


def test_thresholds_at_the_ends():
    metric, valid = ragged([16, 16], 0)
    best, partner = pair_up(metric, False, valid)
    nothing = merge_chosen(above(best, 1.0, 8), best, partner, valid, True)
    assert nothing[1] == 16, "a cosine of more than 1 there is not"
    _, count = merge_chosen(above(best, -1.1, 8), best, partner, valid)
    assert count == 8


def test_the_best_pairs_of_a_batch_are_those_of_its_pool():
    metric, _ = ragged([12] * 4, 3)
    best, _ = pair_up(metric)
    chosen, cut = best_of_batch(best, 9, 6)
    ranked = best.flatten().sort(descending=True).values
    assert int(chosen.sum()) == 9 and best[chosen].min() == ranked[8] and cut == float(ranked[9])
    capped, _ = best_of_batch(best, 9, 2)
    assert (capped.sum(1) <= 2).all() and int(capped.sum()) == 8
    everything, cut = best_of_batch(best, 24, 6)
    assert bool(everything.all()) and cut == 0.0, "floored, for nothing was left out"


@settings(deadline=None, max_examples=60)
@given(
    total=st.integers(0, 600),
    blocks=st.integers(1, 40),
    kind=st.sampled_from(["constant", "linear", "reverse_linear"]),
)
def test_a_schedule_spreads_all_merges(total, blocks, kind):
    plan = spread(total, blocks, kind)
    assert sum(plan) == total and len(plan) == blocks and min(plan) >= 0
    if kind == "constant":
        assert max(plan) - min(plan) <= 1
    assert spread(total, blocks, "reverse_linear") == spread(total, blocks, "linear")[::-1]
