"""Prune visual tokens before the first LLM layer with relevance scores from a small learned CNN.

"Generic Token Compression in Multimodal Large Language Models from an Explainability Perspective",
ICLR 2026, arXiv 2506.01097.

Rule: a_j is the attention that the text after the last visual token pays visual token j with the
queries and keys of LLM layer 0, softmax over all keys, mean over these query tokens and over heads.
With `heads`, every head is an input channel of its own; the shipped networks and those from
`foveate train --method explain_compress` are of this kind. f, five depthwise-separable 1-D
convolutions along the tokens, turns a into scores:

    score = softmax(f(a)), over the tokens of an image or video

The tokens with the largest scores are kept. f is trained to predict the relevance of tokens to the
answers: gradient times attention, propagated through all layers (`foveate.training.relevance`).
Pages list the method inside the LLM, because its scores come from queries and keys of LLM layer 0;
tokens are dropped at the input of that layer, so every layer runs on the kept tokens only.

Needs: queries of the text after the image, and keys of LLM layer 0.

Cost: projections of these queries and keys, one row of attention per text token after the image,
and 0.18 million multiply-adds per visual token.

Differences: no official code exists. Attention is divided by its mean, so that f fits any number of
tokens. "native" positions are the paper's: renumbered, except in models with M-RoPE.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.ExplainCompress(keep=0.5)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveate.budget import FROM_LAYER, Keep
from foveate.errors import InvalidParameter
from foveate.method import register
from foveate.methods.layers.base import ScoredLayers, item_batches
from foveate.parts import BoundaryState, Widths
from foveate.trained import TrainedMethod

IGNORED = -100
# Rows of attention computed at a time.
ROWS = 64


class Relevance(nn.Module):
    """f: attention to n tokens (B, H, n) to the relevance of each, (B, n), for any n.

    heads: H where every head is an input channel, None for their mean.
    """

    def __init__(self, channels: tuple[int, ...], heads: int | None = None):
        super().__init__()
        self.heads = heads
        layers: list[nn.Module] = []
        for before, after in zip((heads or 1, *channels), channels, strict=False):
            layers += [
                nn.Conv1d(before, before, 3, padding=1, groups=before),
                nn.Conv1d(before, after, 1),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv1d(channels[-1], 1, 1))
        for module in self.layers:
            if isinstance(module, nn.Conv1d):
                # This keeps differences between tokens through ten convolutions before training.
                wide = module.kernel_size[0] > 1
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if wide else "relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def logits(self, attention: Tensor) -> Tensor:
        """Scores (B, n) before the softmax, float32."""
        if self.heads is None:
            attention = attention.mean(1, keepdim=True)
        elif attention.shape[1] != self.heads:
            raise InvalidParameter(
                f"heads={self.heads}, but the LLM has {attention.shape[1]} attention heads; use "
                "that number, or None."
            )
        scaled = attention / attention.mean(2, keepdim=True).clamp(min=1e-12)
        weight: Tensor = self.layers[-1].weight  # type: ignore[assignment]
        return self.layers(scaled.to(weight.dtype))[:, 0].float()

    def forward(self, attention: Tensor) -> Tensor:
        """Shares (B, n) that sum to 1."""
        return self.logits(attention).softmax(1)


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class ExplainCompress(TrainedMethod, ScoredLayers):
    """ExplainCompress; the docstring of its module states the rule.

    Attributes:
        keep: tokens from LLM layer k on; k is 0, so that every layer runs on them; an int is a
            count per image or video, a float in (0, 1] a retention ratio, rho of the paper.
        channels: widths of the convolutions where the network is untrained, each at least 1.
        heads: number of attention heads of the LLM, where every head is an input channel; None
            takes their mean, as the paper does. Loaded weights bring their own.
    """

    slug = "explain_compress"
    paper = "arXiv 2506.01097"
    prompt_agnostic = False
    keep_means = FROM_LAYER
    per_item = True
    shapes = ("channels", "heads")

    keep: Keep = 0.5
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    heads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.channels or min(self.channels) < 1:
            raise InvalidParameter(
                f"channels={self.channels!r} is not valid: use one width or more, each at least 1."
            )
        if self.heads is not None and not self.heads >= 1:
            raise InvalidParameter(
                f"heads={self.heads!r} is not valid: use the LLM's number of attention heads, or "
                "None."
            )

    def build(self, **base: int) -> Relevance:
        return Relevance(self.channels, self.heads)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return (0,)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        pairs = zip((self.heads or 1, *self.channels), self.channels, strict=False)
        network = sum(a * (b + 3) for a, b in pairs) + self.channels[-1]
        return 2 * n * (widths.keys * widths.model + network)

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        seen = instruction_attention(state)
        module = self.module(state.hidden, layers=layers)
        scores = torch.zeros(state.item.shape, device=seen.device)
        for rows, columns in item_batches(state):
            of = rows[:, None], columns
            scores[of] = module.logits(seen[rows[:, None], :, columns].mT)
        return scores


def instruction_attention(state: BoundaryState) -> Tensor:
    """Mean attention (B, H, N) from the text after the last visual token to every column.

    In training, answers do not count. The last row of the prompt is used where there is no text
    after the image.
    """
    columns = torch.arange(state.visual.shape[1], device=state.visual.device)
    end = torch.where(state.visual, columns, -1).amax(1, keepdim=True)
    is_query = (columns > end) & state.valid & (columns <= state.last[:, None])
    if state.labels is not None:
        is_query &= state.labels == IGNORED
    is_query |= (columns == state.last[:, None]) & ~is_query.any(1, keepdim=True)
    most = max(1, state.known.asking) if state.labels is None else int(is_query.sum(1).max())
    rows = is_query.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    weight = is_query.gather(1, rows).float() / is_query.sum(1, keepdim=True)
    blocks = zip(rows.split(ROWS, 1), weight.split(ROWS, 1), strict=True)
    seen = [share[:, None, None] @ state.attention(some) for some, share in blocks]
    return torch.stack(seen).sum(0)[:, :, 0]
