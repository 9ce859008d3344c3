"""Merges tokens into their nearest target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def spread(n: int, k: int, device: torch.device | None = None) -> Tensor:
    """Indices (min(k, n),) at equal steps of floor(n / k), from 0."""
    return torch.arange(min(k, n), device=device) * max(1, n // max(1, k))


def nearest(x: Tensor, targets: Tensor) -> Tensor:
    """Index (B, N) of the target (B, K, D) with the largest cosine to each of x (B, N, D)."""
    return (normalize(x.float(), dim=-1) @ normalize(targets.float(), dim=-1).mT).argmax(-1)
