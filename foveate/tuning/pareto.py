"""The Pareto front of FLOPs and accuracy, and the accuracy drop with its interval."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from foveate.benchmarks.statistics import interval, resampled
from foveate.tuning.evaluations import Score


def pareto_front(scores: Iterable[Score]) -> list[Score]:
    """The Pareto-optimal scores: no cheaper one is as accurate. Cheapest first."""
    best: list[Score] = []
    for score in sorted(scores, key=lambda s: (s.cost, -s.accuracy)):
        if not score.refused and (not best or score.accuracy > best[-1].accuracy):
            best.append(score)
    return best


def accuracy_drop(full: np.ndarray, right: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Accuracy drop from `full` to `right` on the same samples, with its paired 95 % interval.

    Args:
        full: answers of the full model (n,), 1 correct and 0 wrong.
        right: answers of the setting (n,).
    """
    drawn = resampled(np.stack([full, right]))
    low, high = interval(drawn[:, 0] - drawn[:, 1]) or (0.0, 0.0)
    return float(full.mean() - right.mean()), (low, high)
