"""Training targets from attention: how much attention each token receives in a deeper layer."""

from __future__ import annotations

from torch import Tensor

from foveate.ops.attention import Heads, paid
from foveate.ops.select import columns_of
from foveate.ops.standard import standardised

ROWS = ("last_nv", "from_visual", "text")
TARGETS = ("raw", "mean", "log1p", "standard")


def attention_target(heads: Heads, visual: Tensor, rows: str, target: str) -> Tensor:
    """Attention (B, N) that tokens receive in one layer, over all heads.

    Args:
        heads: queries and keys of the layer.
        visual: which tokens are visual, bool (B, N).
        rows: whose attention counts: "last_nv" (as many last tokens as there are visual ones),
            "from_visual" (all from the first visual token on) or "text" (text after it).
        target: "raw" (sum), "mean", "log1p" of the sum, or "standard" (logarithm of the mean,
            standardised per prompt).
    """
    before = visual.long().cumsum(1) == 0
    if rows == "text":
        asked = heads.valid & ~visual & ~before
    elif rows == "from_visual":
        asked = heads.valid & ~before
    else:
        from_end = heads.valid.flip(1).long().cumsum(1).flip(1)
        asked = heads.valid & (from_end <= visual.sum(1, keepdim=True))
    mean = paid(heads, *columns_of(asked))
    if target == "mean":
        return mean
    if target == "standard":
        return standardised(mean.clamp(min=1e-9).log(), visual)
    total = mean * heads.query.shape[1] * asked.sum(1, keepdim=True)
    return total.log1p() if target == "log1p" else total
