"""G-Search and P-Sigmoid: searches for a retention ratio of every decoder layer.

Zhao et al., CVPR 2025, arXiv 2412.00556; `foveate.GSearch` applies the schedules that they find.
"""

from __future__ import annotations

from collections.abc import Callable

from foveate.tuning.bayes import maximise

GRID = 32
SLOPES = (0.05, 5.0)
SEARCHERS = ("bisect", "bo")
# Weight of a lower rate against the accuracy drop in the objective of Bayesian optimisation.
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
    """G-Search: the retention ratio (rate) of every layer, from the first layer to the last.

    For each layer it finds the smallest rate with accuracy(rates) >= `least`. A trial uses its rate
    for this and all later layers, so that every accepted schedule was measured as a whole, and
    rates never increase with depth.

    Args:
        accuracy: measures a schedule, one rate per layer.
        layers: number of decoder layers.
        least: smallest acceptable accuracy.
        grid: "bisect" tries multiples of 1 / grid. Default 32.
        searcher: "bisect" (accuracy is assumed to fall with the rate) or "bo".
        tolerance: scale of an accuracy drop in the objective of "bo". Default 0.01.
        seed: seed of "bo". Default 0.
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
    """The smallest accepted multiple of 1 / grid; `last` is known to be accepted."""
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
    """The smallest accepted rate found by Bayesian optimisation, `last` if there is none."""
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
    """P-Sigmoid: the slope kappa of the most accurate sigmoid over depth, and its accuracy.

    Args:
        accuracy: measures a slope at a fixed budget, which determines the midpoint.
        start: number of random slopes. Default 5.
        steps: number of slopes proposed by Bayesian optimisation. Default 15.
        seed: seed of the search. Default 0.
        enough: stop at this accuracy. Default None.
    """
    low, high = SLOPES
    found = maximise(
        lambda a: accuracy(-a), low, high, log=True, start=start, steps=steps, seed=seed,
        enough=enough,
    )  # fmt: skip
    return -found[0][0], found[0][1]
