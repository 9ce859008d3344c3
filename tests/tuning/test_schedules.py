"""G-Search, P-Sigmoid and Bayesian optimisation on functions with a known optimum."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.methods.layers.gsearch import sigmoid_rates
from foveate.tuning.bayes import maximise
from foveate.tuning.schedules import g_search, p_sigmoid


class Planted:
    """Right where every layer reads at least the tokens that it needs; counts what was asked."""

    def __init__(self, needed):
        self.needed, self.asked = needed, []

    def __call__(self, rates):
        self.asked.append(rates)
        return float(all(r >= n for r, n in zip(rates, self.needed, strict=True)))


@settings(deadline=None)
@given(st.lists(st.integers(0, 32), min_size=1, max_size=12))
def test_greedy_bisection_finds_exactly_the_planted_schedule(counts):
    needed = (1.0, *(n / 32 for n in sorted(counts, reverse=True)))
    oracle = Planted(needed)
    assert g_search(oracle, len(needed), 1.0) == needed
    assert len(oracle.asked) <= 6 * len(counts)
    for rates in oracle.asked:
        assert list(rates) == sorted(rates, reverse=True)


def test_layers_after_one_without_visual_tokens_are_not_searched():
    oracle = Planted((1.0, 0.5, 0.0, 0.0, 0.0, 0.0))
    assert g_search(oracle, 6, 1.0) == oracle.needed
    assert len(oracle.asked) <= 6 + 5


def test_a_model_that_needs_every_token_keeps_every_token():
    assert g_search(Planted((1.0,) * 4), 4, 1.0) == (1.0,) * 4


@pytest.mark.slow
def test_bayesian_g_search_accepts_only_accurate_rates():
    oracle = Planted((1.0, 0.6, 0.25))
    rates = g_search(oracle, 3, 1.0, searcher="bo")
    assert oracle(rates) == 1.0 and list(rates) == sorted(rates, reverse=True)
    assert rates[1] < 0.75 and rates[2] < 0.45
    assert rates == g_search(Planted(oracle.needed), 3, 1.0, searcher="bo")


def smooth(x):
    return math.exp(-((math.log(x) - math.log(0.37)) ** 2) / 0.5)


@pytest.mark.slow
def test_bayesian_optimisation_is_better_than_random_search():
    wins = 0
    for seed in range(3):
        found = maximise(smooth, 0.01, 10, log=True, start=4, steps=8, seed=seed)
        assert len(found) == 12
        draw = random.Random(seed)
        chance = max(smooth(math.exp(draw.uniform(math.log(0.01), math.log(10)))) for _ in found)
        wins += found[0][1] > chance
        assert found[0][1] > 0.99
    assert wins >= 2


def test_equal_seeds_give_equal_points_and_enough_stops_the_search():
    one, two = (maximise(smooth, 0.01, 10, log=True, start=2, steps=2, seed=1) for _ in range(2))
    assert one == two
    assert len(maximise(smooth, 0.01, 10, start=5, steps=5, enough=0.0)) == 1


@pytest.mark.parametrize("budget", [0.2])
def test_p_sigmoid_finds_the_slope_within_the_budget(budget):
    layers, seen = 12, []

    def accuracy(kappa):
        rates = sigmoid_rates(budget, layers, kappa)
        seen.append(sum(rates) / layers)
        return -abs(math.log(-kappa) - math.log(0.8))

    kappa, best = p_sigmoid(accuracy, start=4, steps=4)
    assert best > -0.2 and kappa == pytest.approx(-0.8, rel=0.25)
    assert all(mean == pytest.approx(budget, abs=1 / (layers * 64)) for mean in seen)
