"""Statistics of the tables: intervals, paired tests, K90, rank correlation.

Answers are rows of 0 (wrong) and 1 (correct), one entry per item. All rows use the same items, so
every comparison is paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DRAWS = 2000
LEVEL = 0.95
THRESHOLD = 0.9


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the proportion `right` / `n`."""
    z = 1.959963984540054
    p = right / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Without these conditions rounding gives ends slightly inside (0, 1) where they are 0 or 1.
    low = (middle - half) / scale if right else 0.0
    return low, (middle + half) / scale if right < n else 1.0


def resampled(right: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Bootstrap means (draws, S) of answers (S, N): items are resampled with replacement.

    All rows use the same draws, so that differences between rows are paired.
    """
    n = right.shape[1]
    rng = np.random.Generator(np.random.PCG64(seed))
    # A mean only needs how often each item is drawn: one matrix product serves every row.
    counts = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    return counts @ right.T.astype(np.float64) / n


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """Central interval of bootstrap values (draws,); None if too many of them are undefined."""
    known = values[np.isfinite(values)]
    if len(known) < level * len(values) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def normalised_accuracy(accuracy, no_image, full):
    """(accuracy - no_image) / (full - no_image), not clipped; NaN if full is not above no_image.

    0 is the no-image baseline, 1 the full model.
    """
    span = np.asarray(full - no_image, dtype=np.float64)
    safe = np.where(span > 1e-12, span, np.nan)
    return (accuracy - no_image) / safe


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """Exact two-sided p-value of McNemar's test on paired answers (N,) of 0 and 1."""
    gained = int(((one == 1) & (other == 0)).sum())
    lost = int(((one == 0) & (other == 1)).sum())
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**n)


def smallest_keep(keeps: Sequence[float], values: Sequence[float]) -> float | None:
    """K90: the smallest retention ratio at which the normalised accuracy reaches 0.9.

    Linear in log2 of the ratio between measured ratios. If the smallest measured ratio reaches
    0.9, it is returned, and is an upper bound.

    Args:
        keeps: retention ratios in any order.
        values: normalised accuracy at each of them.

    Returns:
        A ratio, or None if no measured ratio reaches 0.9.
    """
    points = sorted(zip(keeps, values, strict=True))
    good = [i for i, (_, r) in enumerate(points) if r >= THRESHOLD]
    if not good:
        return None
    i = good[0]
    if i == 0:
        return points[0][0]
    (low, below), (high, above) = points[i - 1], points[i]
    share = (THRESHOLD - below) / (above - below)
    return 2 ** (math.log2(low) + share * (math.log2(high) - math.log2(low)))


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's tau-b between two lists of scores; NaN if all scores of a list are equal."""
    x, y = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    upper = np.triu_indices(len(x), 1)
    a = np.sign(x[:, None] - x)[upper]
    b = np.sign(y[:, None] - y)[upper]
    scale = math.sqrt((a != 0).sum() * (b != 0).sum())
    return float((a * b).sum() / scale) if scale else math.nan
