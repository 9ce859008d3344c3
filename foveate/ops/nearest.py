"""Gathering tokens around a few of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def spread(n: int, k: int, device: torch.device | None = None) -> Tensor:
    """Indices (min(k, n),) at equal steps from 0 on: every floor(n / k)-th of n."""
    return torch.arange(min(k, n), device=device) * max(1, n // max(1, k))


def nearest(x: Tensor, targets: Tensor) -> Tensor:
    """For each of x (B, N, D) the index (B, N) of the target in (B, K, D) of largest cosine."""
    return (normalize(x.float(), dim=-1) @ normalize(targets.float(), dim=-1).mT).argmax(-1)
