"""Statistics against slow, plain versions."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.benchmarks.statistics import (
    interval,
    kendall,
    mcnemar,
    normalised_accuracy,
    resampled,
    smallest_keep,
    wilson,
)


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_ends_where_the_score_test_does(n, share):
    right = round(share * n)
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1 or math.isclose(low, right / n, abs_tol=1e-9)
    for end in (low, high):
        if 0 < end < 1:
            z = (right / n - end) / math.sqrt(end * (1 - end) / n)
            assert abs(z) == pytest.approx(1.959964, abs=1e-4)


def test_bootstrap_equals_a_plain_loop():
    right = np.array([[1, 0, 1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 0, 0, 0, 0]])
    fast = resampled(right, draws=20_000, seed=1)
    rng = random.Random(2)
    slow = []
    for _ in range(20_000):
        items = [rng.randrange(8) for _ in range(8)]
        slow.append([sum(row[i] for i in items) / 8 for row in right])
    slow = np.array(slow)
    np.testing.assert_allclose(fast.mean(0), slow.mean(0), atol=0.01)
    np.testing.assert_allclose(np.cov(fast.T), np.cov(slow.T), atol=0.002)


def test_all_rows_use_the_same_bootstrap_draws():
    right = np.array([[1, 0, 1, 0, 1]] * 2)
    draws = resampled(right)
    assert (draws[:, 0] == draws[:, 1]).all()
    assert (resampled(right) == draws).all()


def test_interval_is_central_and_none_for_undefined_draws():
    values = np.arange(1001) / 1000
    assert interval(values) == pytest.approx((0.025, 0.975))
    values[:100] = np.nan
    assert interval(values) is None


def test_normalised_accuracy_is_not_clipped_and_may_be_undefined():
    assert normalised_accuracy(0.5, 0.2, 0.8) == pytest.approx(0.5)
    assert normalised_accuracy(0.9, 0.2, 0.8) > 1 and normalised_accuracy(0.1, 0.2, 0.8) < 0
    assert np.isnan(normalised_accuracy(0.5, 0.4, 0.4)) and np.isnan(
        normalised_accuracy(0.5, 0.4, 0.3)
    )


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5))
def test_mcnemar_equals_the_binomial_test(gained, lost, both):
    one = np.array([1] * gained + [0] * lost + [1] * both)
    other = np.array([0] * gained + [1] * lost + [1] * both)
    n = gained + lost
    as_far = sum(
        math.comb(n, heads) for heads in range(n + 1) if abs(2 * heads - n) >= abs(gained - lost)
    )
    assert mcnemar(one, other) == pytest.approx(as_far / 2**n if n else 1.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=9))
def test_kendall_counts_pairs(points):
    x, y = zip(*points, strict=True)
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    agree = sum((x[i] - x[j]) * (y[i] - y[j]) > 0 for i, j in pairs)
    differ = sum((x[i] - x[j]) * (y[i] - y[j]) < 0 for i, j in pairs)
    scale = math.sqrt(sum(x[i] != x[j] for i, j in pairs) * sum(y[i] != y[j] for i, j in pairs))
    found = kendall(x, y)
    assert found == pytest.approx((agree - differ) / scale) if scale else math.isnan(found)


def test_k90_is_interpolated_between_ratios():
    # Half way from 0.8 to 1.0 in log2 between a quarter and a half.
    assert smallest_keep([1, 0.5, 0.25], [1, 1, 0.8]) == pytest.approx(2**-1.5)
    assert smallest_keep([0.25, 1, 0.5], [0.8, 1, 1]) == pytest.approx(2**-1.5)


def test_k90_if_all_or_no_ratios_reach_it():
    assert smallest_keep([1, 0.5], [1, 0.95]) == 0.5
    assert smallest_keep([1, 0.5], [0.5, 0.4]) is None
    assert smallest_keep([1, 0.5], [1, 0.0]) == pytest.approx(2**-0.1)


def test_k90_takes_the_smallest_of_several_crossings():
    assert smallest_keep([1, 0.5, 0.25, 0.125], [1, 0.85, 0.9, 0.5]) == pytest.approx(0.25)
