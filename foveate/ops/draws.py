"""Random numbers that depend on nothing but their place, so that more of them change none."""

from __future__ import annotations

import torch
from torch import Tensor

_SPAN = 2**31 - 1


def draws(place: Tensor, seed: int) -> Tensor:
    """Uniform numbers in [0, 1), one for each entry of `place` (...) int and this seed."""
    # Whoever makes a seed of a seed and a layer may leave what a generator takes.
    seed = (seed + 2**63) % 2**64 - 2**63
    start = int(torch.randint(1, _SPAN, (), generator=torch.Generator().manual_seed(seed)))
    x = (place.long() * 48271 + start) % _SPAN
    for factor in (16807, 69621, 48271):
        # Shifts carry high bits into low ones, which products alone never do.
        x = ((x ^ (x >> 13)) * factor + start) % _SPAN
    return x.double() / _SPAN
