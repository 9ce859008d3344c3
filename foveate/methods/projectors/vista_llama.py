"""Vista-LLaMA's sequential projector: a Q-Former that reads each frame with the previous output.

Ma et al., "Vista-LLaMA: Reducing Hallucination in Video Language Models via Equal Distance to
Visual Tokens", CVPR 2024, arXiv 2312.08870.

A small Transformer reads frame t with learned queries p, concatenated with x_{t-1}, its output for
frame t - 1. The first rows of its output are x_t. So x_t depends on the order of the frames, and a
few frames, always including the last one, stand for the video. The projector to the LLM follows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from foveate.errors import InvalidParameter

QUERIES = ("both", "previous_only", "alone")


class Attention(nn.Module):
    """Attention from x (B, Q, D) to context (B, P, W), with residual and post-norm."""

    def __init__(self, width: int, context: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(context, width), nn.Linear(context, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        query, key, value = (
            rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for rows in (self.query(x), self.key(context), self.value(context))
        )
        seen = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.norm(x + self.out(seen))


class Block(nn.Module):
    """Self-attention, cross-attention to the frame in some blocks, then an MLP."""

    def __init__(self, width: int, frame: int | None, heads: int, intermediate: int):
        super().__init__()
        self.self_attention = Attention(width, width, heads)
        self.cross_attention = None if frame is None else Attention(width, frame, heads)
        self.up, self.down = nn.Linear(width, intermediate), nn.Linear(intermediate, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, frame: Tensor) -> Tensor:
        x = self.self_attention(x, x)
        x = x if self.cross_attention is None else self.cross_attention(x, frame)
        return self.norm(x + self.down(gelu(self.up(x))))


class SequentialProjector(nn.Module):
    """Frames (B, T, P, W) to `num_query` tokens for each emitted frame.

    Args:
        encoder_width: W, width of the frame features.
        out: width of the output tokens.
        num_query: Q, learned queries and tokens per frame.
        width: D, width of the Transformer.
        heads: attention heads of the Transformer.
        depth: blocks of the Transformer.
        intermediate: width of the MLPs.
        cross_attention_freq: every so-many-th block, from the first on, attends to the frame.
        queries: "both" uses p and the previous output, "previous_only" only the previous output, as
            in the paper's text, "alone" only p.
        detach: stop gradients from one frame's output into the previous one.
    """

    def __init__(
        self,
        encoder_width: int = 1408,
        out: int = 1024,
        *,
        num_query: int = 32,
        width: int = 768,
        heads: int = 12,
        depth: int = 12,
        intermediate: int = 3072,
        cross_attention_freq: int = 2,
        queries: str = "both",
        detach: bool = True,
    ):
        super().__init__()
        if queries not in QUERIES:
            raise InvalidParameter(
                f"queries={queries!r} is not a valid value; use {', '.join(map(repr, QUERIES))}."
            )
        self.queries, self.detach = queries, detach
        self.query_tokens = nn.Parameter(torch.randn(1, num_query, width) * 0.02)
        self.vision_norm = nn.LayerNorm(encoder_width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(
            Block(width, None if i % cross_attention_freq else encoder_width, heads, intermediate)
            for i in range(depth)
        )
        self.project = nn.Linear(width, out)

    def step(self, frame: Tensor, state: Tensor | None = None) -> Tensor:
        """Output (B, Q, D) for one frame (B, P, W); state: the output for the previous frame."""
        learned = self.query_tokens.expand(len(frame), -1, -1)
        queries = learned
        if state is not None and self.queries != "alone":
            state = state.detach() if self.detach else state
            only_state = self.queries == "previous_only"
            queries = state if only_state else torch.cat([learned, state], 1)
        # In float32: half precision is too coarse for the statistics of the features.
        norm = self.vision_norm
        scale, shift = norm.weight.float(), norm.bias.float()
        normed = layer_norm(frame.float(), norm.normalized_shape, scale, shift, norm.eps)
        frame = normed.to(frame.dtype)
        x = self.norm(queries)
        for block in self.blocks:
            x = block(x, frame)
        return x[:, : learned.shape[1]]

    def forward(
        self, frames: Tensor, num_clips: int = 4, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, K * Q, out) of the emitted frames in time order, and the last output."""
        outputs = []
        for frame in frames.unbind(1):
            state = self.step(frame, state)
            outputs.append(state)
        picked = [outputs[t] for t in emitted(len(outputs), num_clips)]
        return self.project(torch.cat(picked, 1)), outputs[-1]


def emitted(frames: int, num_clips: int) -> list[int]:
    """Frames whose outputs stand for the video: evenly spaced, counted back from the last one.

    More than `num_clips` where that does not divide the number of frames.
    """
    if not 1 <= num_clips <= frames:
        raise InvalidParameter(
            f"num_clips={num_clips} is out of range: the video has {frames} frames; "
            f"use 1 to {frames}."
        )
    apart = frames // num_clips
    return list(range((frames - 1) % apart, frames, apart))
