"""How many tokens survive: `keep` as users write it, and the one rounding rule."""

from __future__ import annotations

import math
from numbers import Integral, Real

from foveate.errors import BudgetError, shown
from foveate.parameters import scalar

Keep = int | float

# What `keep` is where a method's own rule says how many survive, per layer and input.
ADAPTIVE = "adaptive"
# Counts of several items are added up as 64-bit numbers on the device.
MOST = 2**31 - 1


def check_keep(keep: Keep, name: str = "keep") -> Keep:
    """`keep` as a plain number, or `BudgetError` where no item could ever honour it.

    An int is a count of tokens per visual item (at least 1), a float a share in (0, 1]; those of
    numpy and torch likewise.
    """
    keep = scalar(keep)
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise BudgetError(
            f"{name}={shown(keep)} is no budget; use a count such as 64 or a share such as 0.25."
        )
    if isinstance(keep, Integral):
        if keep < 1:
            raise BudgetError(f"{name}={keep} keeps nothing; use a count of at least 1.")
        if keep > MOST:
            raise BudgetError(
                f"{name}={shown(keep)} is more than any visual item has; use a share such as 1.0."
            )
        return int(keep)
    if math.isnan(keep) or not 0 < keep <= 1:
        raise BudgetError(
            f"{name}={keep} is no share; use a float in (0, 1], or an int for a count of tokens."
        )
    return float(keep)


def resolve(keep: Keep, n: int) -> int:
    """Tokens to keep out of `n`: counts as they are, shares rounded half to even, never below 1."""
    keep = check_keep(keep)
    if isinstance(keep, int):
        if keep > n:
            raise BudgetError(
                f"keep={keep} asks for more than the {n} tokens of this visual item; "
                f"use at most {n}, or a share such as keep=1.0."
            )
        return keep
    return max(1, round(keep * n))


def split_evenly(total: int, parts: int) -> list[int]:
    """`total` cut into `parts` whole numbers that differ by at most one, larger ones first."""
    if parts < 1 or total < parts:
        raise BudgetError(
            f"A budget of {total} can't give each of {parts} views a token; "
            f"use at least keep={parts}."
        )
    base, extra = divmod(total, parts)
    return [base + (i < extra) for i in range(parts)]
