"""Random numbers that depend on their index and the seed only."""

from __future__ import annotations

import torch
from torch import Tensor

_SPAN = 2**31 - 1


def draws(place: Tensor, seed: int) -> Tensor:
    """Uniform numbers in [0, 1), one for each entry of `place` (...) int."""
    # Wrap seeds that exceed the range of a torch generator.
    seed = (seed + 2**63) % 2**64 - 2**63
    start = int(torch.randint(1, _SPAN, (), generator=torch.Generator().manual_seed(seed)))
    x = (place.long() * 48271 + start) % _SPAN
    for factor in (16807, 69621, 48271):
        # The shift mixes high bits into low bits, which products alone never do.
        x = ((x ^ (x >> 13)) * factor + start) % _SPAN
    return x.double() / _SPAN
