"""10,000 calls without a silent difference or somebody else's exception."""

import warnings
from collections import Counter

import pytest

from .draws import CALLS, draw
from .laws import LAWS
from .runner import run

SHARDS, EACH = 40, 250


def _all_hold(numbers: range) -> Counter:
    counts, failures = Counter(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, how, failure in run(0, numbers):
            counts[how] += 1
            if failure:
                failures.append(f"{failure.draw}\n    {failure.words}")
    assert not failures, "\n".join(failures)
    return counts


def test_draws_repeat_and_differ():
    assert draw(0, 5) == draw(0, 5)
    assert len({str(draw(0, i)) for i in range(50)}) == 50
    assert set(CALLS) == set(LAWS)


def test_a_few_calls_hold_their_laws():
    counts = _all_hold(range(25, 45))
    assert counts["held"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_calls_hold_their_laws(shard):
    counts = _all_hold(range(shard * EACH, (shard + 1) * EACH))
    assert counts["held"] > 0.4 * EACH and counts["near tie"] < 0.02 * EACH
