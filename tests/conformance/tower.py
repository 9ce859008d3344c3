"""Blocks of a vision encoder with the engine's merging, as `attach` runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
import transformers as hf
from torch import Tensor, nn

from foveate.engine.tower.dual_encoder import DualEncoder
from foveate.engine.tower.merging import Merger
from foveate.parts import BlockState, EncodersPart


class Keys(nn.Module):
    """Attention with zero output whose keys are the last `width` channels of the input."""

    num_heads, scale = 1, 1.0
    config = SimpleNamespace(_attn_implementation="sdpa")

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.q_proj, self.k_proj = Last(width), Last(width)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None):
        self.q_proj(hidden_states), self.k_proj(hidden_states)
        return torch.zeros_like(hidden_states), None


class Last(nn.Module):
    """The last `width` channels."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., -self.width :]


class Nothing(nn.Module):
    """An MLP with zero output."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Block(nn.Module):
    """A pre-norm block without norms and MLP."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.Identity(), nn.Identity()
        self.self_attn, self.mlp = attention, Nothing()


def clip_layer(width: int, heads: int, intermediate: int, eps: float = 1e-5, act: str = "gelu"):
    """A block of a CLIP vision encoder."""
    config = hf.CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        layer_norm_eps=eps,
        hidden_act=act,
        attn_implementation="sdpa",
    )
    return hf.models.clip.modeling_clip.CLIPEncoderLayer(config).eval()


def in_halves(weights: Mapping[str, Tensor], fused: str, names: Mapping[str, str]) -> dict:
    """Block weights with CLIP's names; `fused` holds query, key and value weights."""
    state = {}
    for kind in (".weight", ".bias"):
        for name in (fused + kind, fused + kind.replace(".", "_")):
            if name in weights:
                parts = weights[name].chunk(3)
                state |= {f"self_attn.{n}_proj{kind}": p for n, p in zip("qkv", parts, strict=True)}
        state |= {
            ours + kind: weights[theirs + kind]
            for theirs, ours in names.items()
            if theirs + kind in weights
        }
    return state


@dataclass
class Seen(EncodersPart):
    """Runs another part and records its states."""

    part: EncodersPart
    states: list[BlockState] = field(default_factory=list)

    @property
    def proportional(self) -> bool:  # type: ignore[override]
        return self.part.proportional

    def vectors(self, block: int, blocks: int) -> int:
        return self.part.vectors(block, blocks)

    def beside(self, block: int, blocks: int, state: Tensor) -> Tensor | None:
        return self.part.beside(block, blocks, state)

    def merge(self, block: int, blocks: int, state: BlockState):
        self.states.append(state)
        return self.part.merge(block, blocks, state)


class Tower(nn.Module):
    """Blocks with a merging part.

    Args:
        blocks: of the vision encoder.
        part: merges tokens in them.
        classed: token 0 is a class token.
        distilled: token 1 is a distillation token.
    """

    def __init__(
        self, blocks: list[nn.Module], part: EncodersPart, classed: bool, distilled: bool = False
    ):
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(blocks)
        self.part = Seen(part)
        holder = SimpleNamespace(vision_model=self)
        dual = DualEncoder(holder, "clip", classed, distill_token=distilled)
        self.merger = Merger(dual, "image", [self.part])

    @torch.no_grad()
    def run(self, x: Tensor, size: Tensor | None = None, block: int = 0) -> Tensor:
        """Output of a block for tokens x (B, N, C) that represent `size` (B, N, 1) patches."""
        alone = torch.arange(x.shape[1]).expand(x.shape[:2])
        with self.merger.active():
            if size is None:
                self.merger.begin(x.new_ones(x.shape[:2]))
            else:
                self.merger.begin(size[..., 0], alone)
            return self.encoder.layers[block](x, None)

    @property
    def size(self) -> Tensor:
        """Patches per token, 0 for padding, (B, M, 1)."""
        return self.merger.size[..., None]

    @property
    def assign(self) -> Tensor:
        """Output token of each input token, (B, N)."""
        assign = self.merger.history[-1]
        if assign is None:
            b, n = self.merger.size.shape
            return torch.arange(n).expand(b, n)
        return assign

    @property
    def source(self) -> Tensor:
        """1 where an input token is part of an output token, int (B, M, N)."""
        new = torch.arange(self.merger.size.shape[1])
        return (self.assign[:, None] == new[:, None]).long()

    def spread(self, x: Tensor) -> Tensor:
        """Output tokens (B, M, C) copied to all their input positions, (B, N, C)."""
        return self.merger.full(len(self.merger.history) - 1, x, 1)


def merged(
    part: EncodersPart, x: Tensor, metric: Tensor, size: Tensor | None = None, **rows: bool
) -> tuple[Tensor, Tower]:
    """Tokens x (B, N, D) merged by the keys `metric` (B, N, C), and the tower."""
    tower = Tower([Block(Keys(metric.shape[2]))], part, **rows)
    return tower.run(torch.cat([x, metric], 2), size)[..., : x.shape[2]], tower
