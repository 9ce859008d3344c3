"""Probe rows, what they give each token, how many tokens are needed and which."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.ops.attention import Heads
from foveate.ops.importance import most_important, needed, probe_rows, received, seen_behind

LOWEST = torch.finfo(torch.float32).min


def heads(seed: int, n: int, pad: int = 0, mask=None) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 4, n, 8, generator=generator)
    key = torch.randn(1, 2, n, 8, generator=generator)
    return Heads(query, key, 8**-0.5, (torch.arange(n) >= pad)[None], mask)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 60), pad=st.integers(0, 20), recent=st.integers(1, 9), random=st.integers(0, 9)
)
def test_probes_are_the_last_tokens_and_earlier_ones_without_repeat(n, pad, recent, random):
    valid = torch.ones(1, n, dtype=torch.bool)
    rows, real = probe_rows(valid, recent, random, seed=3)
    assert real.all() and len(rows[0].unique()) == rows.shape[1] == min(n, recent + random)
    assert rows[0, -min(n, recent) :].tolist() == list(range(max(0, n - recent), n))
    again, _ = probe_rows(valid, recent, random, seed=3)
    assert torch.equal(rows, again)
    # Padding moves them and changes nothing else; a longer neighbour neither.
    two = torch.ones(2, n + pad, dtype=torch.bool)
    two[0, :pad] = False
    rows_two, real_two = probe_rows(two, recent, random, seed=3)
    assert torch.equal(rows_two[0][real_two[0]] - pad, rows[0])
    assert (rows_two[0][~real_two[0]] == n + pad - 1).all()


def test_other_seeds_draw_other_tokens():
    valid = torch.ones(1, 200, dtype=torch.bool)
    assert not torch.equal(probe_rows(valid, 4, 8, 0)[0], probe_rows(valid, 4, 8, 1)[0])


@pytest.mark.parametrize("kind", ["causal", "bool", "float"])
def test_all_rows_give_the_exact_column_sums(kind):
    n, pad = 13, 2
    visible = (torch.ones(n, n).tril().bool() & (torch.arange(n) >= pad)[None]) | torch.eye(
        n
    ).bool()
    mask = {"causal": None, "bool": visible, "float": torch.where(visible, 0.0, LOWEST)}[kind]
    h = heads(0, n, pad, None if mask is None else mask[None, None])
    rows, real = probe_rows(h.valid, 64, 64, 0)
    mass, sees = received(h, rows, real)
    key = h.key.repeat_interleave(2, 1)
    logits = (h.query @ key.mT * h.scaling).masked_fill(~visible, float("-inf"))
    full = logits.softmax(-1).mean(1)[0, pad:].sum(0)
    torch.testing.assert_close(mass[0, pad:], full[pad:])
    assert torch.equal(sees[0, pad:], seen_behind(h.valid)[0, pad:].float())
    torch.testing.assert_close(mass[0, pad:].sum(), torch.tensor(float(n - pad)))


def test_slots_that_are_not_real_count_for_nothing():
    h = heads(1, 9)
    rows = torch.tensor([[3, 8, 8, 8]])
    one = received(h, rows[:, :2], torch.ones(1, 2, dtype=torch.bool))
    padded = received(h, rows, torch.tensor([[True, True, False, False]]))
    torch.testing.assert_close(one, padded)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 999), n=st.integers(1, 30), a=st.floats(0.01, 1), b=st.floats(0.01, 1))
def test_the_count_is_the_smallest_that_holds_the_share(seed, n, a, b):
    mass = torch.rand(1, n, generator=torch.Generator().manual_seed(seed)) ** 4
    valid = torch.ones(1, n, dtype=torch.bool)
    p = int(needed(mass, valid, a))
    order = mass[0].double().sort(descending=True).values
    assert order[:p].sum() >= a * order.sum() - 1e-9 or p == n
    assert p == 1 or order[: p - 1].sum() < a * order.sum()
    low, high = sorted((a, b))
    assert needed(mass, valid, low) <= needed(mass, valid, high)
    assert int(needed(mass, valid, 1.0)) == n


def test_few_tokens_of_one_hot_attention_are_needed_and_nearly_all_of_uniform():
    valid = torch.ones(1, 100, dtype=torch.bool)
    hot = torch.zeros(1, 100)
    hot[0, 7] = 100.0
    assert needed(hot, valid, 0.975).tolist() == [1]
    assert needed(torch.ones(1, 100), valid, 0.975).tolist() == [98]


def test_normalising_takes_the_favour_from_the_first_token():
    """Uniform causal attention: column j gets the sum of 1 / (i + 1) over the rows i from j on."""
    n = 50
    valid = torch.ones(1, n, dtype=torch.bool)
    h = Heads(torch.zeros(1, 1, n, 4), torch.zeros(1, 1, n, 4), 1.0, valid)
    mass, sees = received(h, *probe_rows(valid, n, 0, 0))
    assert torch.equal(mass[0].argsort(descending=True, stable=True), torch.arange(n))
    assert (mass[0].diff() < 0).all()
    score = mass / sees
    # The advantage of the first over the middle was the number of rows, and is now below it.
    assert score[0, 0] / score[0, n // 2] < mass[0, 0] / mass[0, n // 2]
    assert (score[0, 0] / score[0, -1]) < (mass[0, 0] / mass[0, -1]) / 10


def test_the_last_token_is_always_among_the_important():
    valid = torch.tensor([[False, True, True, True], [True, True, True, False]])
    score = torch.tensor([[9.0, 5, 4, 1], [1.0, 3, 2, 9]])
    chosen = most_important(score, torch.tensor([2, 2]), valid)
    assert chosen.tolist() == [[False, True, False, True], [False, True, True, False]]
