"""G-Search and P-Sigmoid: which share of the visual tokens each decoder layer shall read.

Zhao et al., CVPR 2025, arXiv 2412.00556; `foveate.GSearch` runs what these find.
"""

from __future__ import annotations

from collections.abc import Callable

from foveate.tuning.bayes import maximise

GRID = 32
SLOPES = (0.05, 5.0)
SEARCHERS = ("bisect", "bo")
# Weight of a lower rate against what is lost, where Bayesian optimisation trades one for the other.
LAMBDA = 0.5
SLACK = 1e-9


def g_search(
    accuracy: Callable[[tuple[float, ...]], float],
    layers: int,
    least: float,
    *,
    grid: int = GRID,
    searcher: str = "bisect",
    tolerance: float = 0.01,
    seed: int = 0,
) -> tuple[float, ...]:
    """The rate of every layer, each the smallest that leaves accuracy(rates) >= `least`.

    From shallow to deep: a trial gives its rate to all layers from this one on, so every accepted
    schedule was measured whole and the rates fall. searcher: "bisect" halves the multiples of
    1 / grid, where accuracy falls with the rate; "bo" optimises the rate in [0, last rate].
    tolerance: what a loss is measured against in the objective of "bo".
    """
    rates = (1.0,)
    while len(rates) < layers and rates[-1]:
        rest = layers - len(rates)

        def trial(rate: float, rates: tuple[float, ...] = rates, rest: int = rest) -> float:
            return accuracy(rates + (rate,) * rest)

        if searcher == "bisect":
            found = _halved(trial, rates[-1], least, grid)
        else:
            found = _optimised(trial, rates[-1], least, tolerance, seed + len(rates))
        rates += (found,)
    return rates + (0.0,) * (layers - len(rates))


def _halved(trial: Callable[[float], float], last: float, least: float, grid: int) -> float:
    """The smallest multiple of 1 / grid up to `last`, which is known to do, that does."""
    low, high = 0, round(last * grid)
    while low < high:
        middle = (low + high) // 2
        if trial(middle / grid) >= least - SLACK:
            high = middle
        else:
            low = middle + 1
    return min(high / grid, last)


def _optimised(
    trial: Callable[[float], float], last: float, least: float, tolerance: float, seed: int
) -> float:
    """The rate of the best objective that is no worse than `least`; `last` where none is."""
    fine: list[float] = [last]

    def objective(rate: float) -> float:
        lost = trial(rate) - least
        if lost >= -SLACK:
            fine.append(rate)
        return min(0.0, lost) / (tolerance + 1e-6) + LAMBDA * (1 - rate)

    maximise(objective, 0.0, last, start=4, steps=8, seed=seed)
    return min(fine)


def p_sigmoid(
    accuracy: Callable[[float], float],
    *,
    start: int = 5,
    steps: int = 15,
    seed: int = 0,
    enough: float | None = None,
) -> tuple[float, float]:
    """The slope kappa of the most accurate sigmoid, and accuracy(kappa).

    The budget is the business of `accuracy`: for every slope the midpoint follows from it.
    """
    low, high = SLOPES
    found = maximise(
        lambda a: accuracy(-a), low, high, log=True, start=start, steps=steps, seed=seed,
        enough=enough,
    )  # fmt: skip
    return -found[0][0], found[0][1]
