"""Prune visual tokens inside the LLM with scores from a small learned module that reads text too.

Tang et al., "CoViPAL: Layer-wise Contextualized Visual Token Pruning for Large Vision-Language
Models", Findings of EMNLP 2025, arXiv 2508.17243.

Rule: before layer b, a learned module p scores the visual hidden states H_v, given those of the
text H_t:

    S = p(H_v, H_t)

The int(r n) best of the n visual tokens are kept, at their original positions; r follows from
`keep`. p is trained in two stages with the model frozen (`foveate train --method covipal`). In the
first, it learns to predict the attention that tokens receive in a deep layer. In the second, it
learns from the answers, with soft weights instead of a selection:

    m = sigmoid((S - kappa) / T)

log m is added to the attention logits of the keys. T is a temperature, and kappa is set so that the
sum of m is r n.

Needs: the hidden states. No attention.

Cost: the module. Its work grows with n inner (width + t), for n visual tokens, t text tokens,
hidden states of `width` channels, and a module of width `inner`.

Differences: no official code exists. The target of the first stage differs: the paper takes the sum
over heads of the attention from the last n query tokens; the recipe and the shipped weights take
the logarithm of the attention from text tokens, standardised per prompt. `--set rows_of=last_nv
--set target=raw` is the paper's target. The layers of the module, T, and the budgets of several
pruning layers are choices of this implementation: each layer has its own module, and the ratio
falls by the same factor at each.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.CoViPAL(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foveate.budget import MEAN_OVER_LAYERS, Keep
from foveate.errors import InvalidParameter
from foveate.method import register
from foveate.methods.layers.base import ScoredLayers, beyond_depth, ratios_of_share, rows_share
from foveate.methods.layers.covipal_mixer import Mixer
from foveate.ops.gather import rows_at
from foveate.ops.select import columns_of, soft_top_k
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, Counts, Merge, Soft, Widths
from foveate.trained import TrainedMethod


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class CoViPAL(TrainedMethod, ScoredLayers):
    """CoViPAL; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers; an int is a count per image or video, a float in (0, 1] a
            retention ratio. With boundary=(0,) it is the paper's r.
        boundary: ascending 0-based LLM layers before which tokens are pruned, one module each.
        ppm: architecture of the module: "cross" lets visual tokens attend to text, "mixer" to each
            other too, as in a later project that uses inner=512, blocks=4, heads=8.
        inner: width of the module where it is untrained, a multiple of `heads`.
        blocks: number of blocks of the module where it is untrained.
        heads: attention heads of the module where it is untrained, at least 1.
        temperature: T of the soft top-k; in training only.
        eps: added to m before the logarithm; in training only.
    """

    slug = "covipal"
    paper = "arXiv 2508.17243"
    prompt_agnostic = False
    keep_means = MEAN_OVER_LAYERS
    shapes = ("boundary", "ppm", "inner", "blocks", "heads")
    agreed = ("boundary",)

    keep: Keep = 0.25
    positions: str = "original"
    boundary: tuple[int, ...] = (0,)
    ppm: Literal["cross", "mixer"] = "cross"
    inner: int = 256
    blocks: int = 2
    heads: int = 4
    temperature: float = 0.1
    eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.boundary or list(self.boundary) != sorted({*self.boundary}):
            raise InvalidParameter(
                f"boundary={self.boundary} is not valid: use ascending layers from 0 on."
            )
        if min(self.boundary[0], self.blocks) < 0 or self.heads < 1 or self.inner % self.heads:
            raise InvalidParameter(
                f"boundary={self.boundary}, inner={self.inner}, blocks={self.blocks}, "
                f"heads={self.heads} are not valid: inner must be a multiple of heads, heads at "
                "least 1, the others at least 0."
            )

    def build(self, width: int, layers: int) -> nn.Module:
        module = MODULES[self.ppm]
        return nn.ModuleList(
            module(width, self.inner, self.blocks, self.heads) for _ in self.boundary
        )

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if isinstance(self.keep, float) and self.keep == 1:
            return ()
        if self.boundary[-1] >= layers:
            raise beyond_depth("boundary", self.boundary, layers)
        return self.boundary

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        # The projection; then per block query, output and an MLP of twice the width. A mixer
        # adds linear attention, a gate and half as much MLP again, and a gate after all blocks.
        made = self.sized(width=widths.model)
        matrices = 6 * made.blocks if made.ppm == "cross" else 13 * made.blocks + 1
        return 2 * n * made.inner * (widths.model + matrices * made.inner)

    def counts(self, k: int, layers: int, state: BoundaryState) -> list[int]:
        stage = self.boundary.index(k)
        targets = []
        for entered, share in zip(state.known.entered, rows_share(self.keep, state), strict=True):
            ratio = ratios_of_share(share, self.boundary, layers)[stage]
            targets.append(max(1, int(entered * ratio + 1e-6)))
        return targets

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        module = self.module(state.hidden, layers=layers)[self.boundary.index(k)]
        return scores(module, state, state.known)

    def at_boundary(
        self, k: int, layers: int, state: BoundaryState
    ) -> Tensor | Merge | Soft | None:
        if state.labels is None or not self.module(state.hidden, layers=layers).training:
            return super().at_boundary(k, layers, state)
        counts = self.counts(k, layers, state)
        if not self.drops(counts, state):
            return None
        score, target = self.scores(k, layers, state), on_device(counts, state.hidden.device)
        state.signals.record(score)
        m = soft_top_k(score, target, state.visual, self.temperature)
        return Soft((m + self.eps).log())


def scores(module: nn.Module, state: BoundaryState, known: Counts | None = None) -> Tensor:
    """Scores of a module for every visual column, (B, N) float32; 0 for all others.

    In training, the module does not read text from the first answer on. known: `state.known`;
    without it, sizes are read from the device.
    """
    is_text = state.valid & ~state.visual
    if state.labels is not None:
        is_text = is_text & ((state.labels != -100).cumsum(1) == 0)
    most, words = (None, None) if known is None else (max(known.visual), max(known.text))
    visual_columns, real = columns_of(state.visual, most)
    text_columns, text = columns_of(is_text, words if state.labels is None else None)
    visual, words = (rows_at(state.hidden, index) for index in (visual_columns, text_columns))
    # A row without text attends to the padding, which is equal everywhere, to avoid NaN.
    found = (
        module(visual, words, text | ~text.any(1, keepdim=True), real).float().masked_fill(~real, 0)
    )
    return torch.zeros(state.visual.shape, device=found.device).scatter_add(
        1, visual_columns, found
    )


class PruningModule(nn.Module):
    """Scores visual tokens given the text; the order of tokens does not matter."""

    def __init__(self, width: int, inner: int, blocks: int, heads: int):
        super().__init__()
        # Norms of the hidden states grow with depth.
        self.norm = nn.LayerNorm(width)
        self.visual = nn.Linear(width, inner)
        self.text = nn.Linear(width, inner)
        self.blocks = nn.ModuleList(Block(inner, heads) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, 1))

    def forward(self, visual: Tensor, text: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """Scores (B, V) of visual (B, V, D), where real (B, V), next to text (B, T, D), where mask.

        Visual tokens do not attend to each other, so their padding needs no mask.
        """
        v, t = self.visual(self.norm(visual)), self.text(self.norm(text))
        for block in self.blocks:
            v = block(v, t, mask)
        return self.out(v)[..., 0]


class Block(nn.Module):
    """Cross-attention from visual tokens to text, then an MLP; pre-norm, residual."""

    def __init__(self, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.query = nn.LayerNorm(inner), nn.Linear(inner, inner)
        self.key_value, self.out = nn.Linear(inner, 2 * inner), nn.Linear(inner, inner)
        self.mlp = nn.Sequential(
            nn.LayerNorm(inner), nn.Linear(inner, 2 * inner), nn.GELU(), nn.Linear(2 * inner, inner)
        )

    def forward(self, v: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        query, (key, value) = self.query(self.norm(v)), self.key_value(t).chunk(2, -1)
        q, k, x = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (query, key, value))
        attended = F.scaled_dot_product_attention(q, k, x, attn_mask=mask[:, None, None])
        v = v + self.out(attended.transpose(1, 2).flatten(2))
        return v + self.mlp(v)


MODULES = {"cross": PruningModule, "mixer": Mixer}
