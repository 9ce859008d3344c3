"""Token budgets: the values of `keep`, and how a ratio is rounded to a number of tokens."""

from __future__ import annotations

import math
from numbers import Integral, Real

from foveate.errors import BudgetError, shown
from foveate.parameters import scalar

Keep = int | float

# `keep` of methods that derive the number of tokens from the input.
ADAPTIVE = "adaptive"
# What `keep` counts, in the words of the pages and of each method's parameter documentation.
BEFORE_LLM = "tokens that enter the LLM"
FROM_LAYER = "tokens from LLM layer k on"
MEAN_OVER_LAYERS = "mean over all LLM layers"
# Sums over several items must fit into int64 on the device.
MOST = 2**31 - 1


def check_keep(keep: Keep, name: str = "keep") -> Keep:
    """Return `keep` as a plain int or float; raise `BudgetError` where no item could satisfy it.

    An int is a number of tokens per visual item, at least 1; `Method` says what a visual item is.
    A float is a retention ratio in (0, 1]. Scalars of numpy and torch are accepted.
    """
    keep = scalar(keep)
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise BudgetError(
            f"{name}={shown(keep)} is not a valid budget; use a number of tokens such as 64 or a "
            "ratio such as 0.25."
        )
    if isinstance(keep, Integral):
        if keep < 1:
            raise BudgetError(f"{name}={keep} is not a valid number of tokens; use at least 1.")
        if keep > MOST:
            raise BudgetError(
                f"{name}={shown(keep)} is more tokens than any image or video has; use a ratio "
                "such as 1.0 to keep all."
            )
        return int(keep)
    if math.isnan(keep) or not 0 < keep <= 1:
        raise BudgetError(
            f"{name}={keep} is not a valid ratio: use 0 < {name} <= 1, or an integer for a number "
            "of tokens."
        )
    return float(keep)


def resolve(keep: Keep, n: int) -> int:
    """Number of tokens to keep out of `n`.

    A count is used unchanged. A ratio is rounded half to even, and is at least 1 token.
    """
    keep = check_keep(keep)
    if isinstance(keep, int):
        if keep > n:
            raise BudgetError(
                f"keep={keep} is more than the {n} tokens of this visual item; "
                f"use at most {n}, or a ratio such as keep=1.0."
            )
        return keep
    return max(1, round(keep * n))


def split_evenly(total: int, parts: int) -> list[int]:
    """Split `total` into `parts` integers that differ by at most 1, the larger ones first."""
    if parts < 1 or total < parts:
        raise BudgetError(
            f"keep={total} is less than one token for each of the {parts} views (crops or "
            f"frames); use at least keep={parts}."
        )
    base, extra = divmod(total, parts)
    return [base + (i < extra) for i in range(parts)]
