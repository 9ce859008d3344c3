"""A deeper pruning module for CoViPAL: linear attention among visual tokens as well."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mixer(nn.Module):
    """Scores visual tokens given the text and each other, whatever their order."""

    def __init__(self, width: int, inner: int, blocks: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.visual = nn.Linear(width, inner, bias=False)
        self.text = nn.Linear(width, inner, bias=False)
        self.type_embedding = nn.Parameter(torch.zeros(2, inner))
        self.blocks = nn.ModuleList(MixerBlock(inner, heads) for _ in range(blocks))
        self.gate = nn.Linear(inner, inner)
        self.out = nn.Sequential(nn.RMSNorm(inner), nn.Linear(inner, 1))

    def forward(self, visual: Tensor, text: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """Scores (B, V) of visual (B, V, D), where real (B, V), next to text (B, T, D), where mask.

        Padding does not count.
        """
        v = self.visual(self.norm(visual)) + self.type_embedding[0]
        t = self.text(self.norm(text)) + self.type_embedding[1]
        for block in self.blocks:
            v = block(v, t, mask, real)
        shown = mask[..., None].to(t.dtype)
        mean = (t * shown).sum(1, keepdim=True) / shown.sum(1, keepdim=True)
        return self.out(v + self.gate(v).sigmoid() * mean)[..., 0]


class MixerBlock(nn.Module):
    """Linear attention among visual tokens, gated attention to text, SwiGLU; pre-norm, residual."""

    def __init__(self, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.RMSNorm(inner) for _ in range(3))
        self.qkv, self.self_out = nn.Linear(inner, 3 * inner), nn.Linear(inner, inner)
        self.query, self.gate = nn.Linear(inner, inner), nn.Linear(inner, inner)
        self.key_value, self.cross_out = nn.Linear(inner, 2 * inner), nn.Linear(inner, inner)
        self.up, self.down = nn.Linear(inner, 4 * inner), nn.Linear(2 * inner, inner)

    def forward(self, v: Tensor, t: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        v = v + self._self_attention(self.norms[0](v), real)
        query = self.query(self.norms[1](v))
        parts = (query, *self.key_value(t).chunk(2, -1))
        attended = F.scaled_dot_product_attention(
            *(self._split_heads(x) for x in parts), attn_mask=mask[:, None, None]
        )
        v = v + self.cross_out(attended.transpose(1, 2).flatten(2)) * self.gate(query).sigmoid()
        left, right = self.up(self.norms[2](v)).chunk(2, -1)
        return v + self.down(F.silu(left) * right)

    def _self_attention(self, x: Tensor, real: Tensor) -> Tensor:
        """Linear attention, with features elu(x) + 1: no attention map is made."""
        q, k, y = (self._split_heads(part) for part in self.qkv(x).chunk(3, -1))
        q, k = F.elu(q) + 1, (F.elu(k) + 1) * real[:, None, :, None]
        total = q @ (k.mT @ y)
        weight = q @ k.sum(2)[..., None]
        return self.self_out((total / weight.clamp(min=1e-6)).transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
