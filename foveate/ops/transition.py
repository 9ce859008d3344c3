"""How much a module changed each token: ratio of norms and cosine."""

from __future__ import annotations

import torch
from torch import Tensor


def transition(before: Tensor, after: Tensor) -> Tensor:
    """after| / |before| and their cosine for each token of (B, N, D), as (B, N, 2)."""
    before, after = before.float(), after.float()
    ratio = after.norm(dim=-1) / before.norm(dim=-1).clamp(min=1e-12)
    return torch.stack([ratio, torch.cosine_similarity(before, after, dim=-1)], -1)
