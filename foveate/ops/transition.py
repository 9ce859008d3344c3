"""What a sub-module did to each token, told by its length and its direction."""

from __future__ import annotations

import torch
from torch import Tensor


def transition(before: Tensor, after: Tensor) -> Tensor:
    """Per token of before and after (B, N, D): |after| / |before| and their cosine, (B, N, 2)."""
    before, after = before.float(), after.float()
    ratio = after.norm(dim=-1) / before.norm(dim=-1).clamp(min=1e-12)
    return torch.stack([ratio, torch.cosine_similarity(before, after, dim=-1)], -1)
