"""Vista-LLaMA's sequential projector: each frame is asked with what the frame before it answered.

Ma et al., "Vista-LLaMA: Reducing Hallucination in Video Language Models via Equal Distance to
Visual Tokens", CVPR 2024, arXiv 2312.08870.

A small Transformer asks frame t with learned queries p next to x_{t-1}, the answer to frame t - 1,
and its first rows are x_t. So x_t knows the order of what it has seen, and a few frames, the last
one always among them, stand for the video. Behind it comes the projector of the language model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from foveate.errors import InvalidParameter

QUERIES = ("both", "previous_only", "alone")


class Asking(nn.Module):
    """Rows of x (B, Q, D) attend to context (B, P, W); sum, then norm."""

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
    """Queries among themselves, then to the frame in every second block, then an MLP."""

    def __init__(self, width: int, frame: int | None, heads: int, intermediate: int):
        super().__init__()
        self.among = Asking(width, width, heads)
        self.look = None if frame is None else Asking(width, frame, heads)
        self.rise, self.fall = nn.Linear(width, intermediate), nn.Linear(intermediate, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, frame: Tensor) -> Tensor:
        x = self.among(x, x)
        x = x if self.look is None else self.look(x, frame)
        return self.norm(x + self.fall(gelu(self.rise(x))))


class SequentialProjector(nn.Module):
    """Frames (B, T, P, W) to `num_query` tokens for each emitted frame.

    encoder_width: W. out: width of the tokens. width, heads, depth, intermediate: of the
    Transformer. queries: "both" asks with p and the answer before, "previous_only" with that answer
    alone, as the paper's text has it, "alone" with p alone. detach: no gradient from a frame's
    answer into the one before.
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
                f"queries={queries!r} is no way to ask; use {', '.join(QUERIES)}."
            )
        self.queries, self.detach = queries, detach
        self.learned = nn.Parameter(torch.randn(1, num_query, width) * 0.02)
        self.see = nn.LayerNorm(encoder_width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.blocks = nn.ModuleList(
            Block(width, None if i % cross_attention_freq else encoder_width, heads, intermediate)
            for i in range(depth)
        )
        self.project = nn.Linear(width, out)

    def step(self, frame: Tensor, state: Tensor | None = None) -> Tensor:
        """Answer (B, Q, D) to one frame (B, P, W); state: the answer to the frame before it."""
        learned = self.learned.expand(len(frame), -1, -1)
        asked = learned
        if state is not None and self.queries != "alone":
            state = state.detach() if self.detach else state
            asked = state if self.queries == "previous_only" else torch.cat([learned, state], 1)
        # Statistics of features are where half precision loses too much.
        scale, shift = self.see.weight.float(), self.see.bias.float()
        normed = layer_norm(frame.float(), self.see.normalized_shape, scale, shift, self.see.eps)
        frame = normed.to(frame.dtype)
        x = self.norm(asked)
        for block in self.blocks:
            x = block(x, frame)
        return x[:, : learned.shape[1]]

    def forward(
        self, frames: Tensor, num_clips: int = 4, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, K * Q, out) of the emitted frames in time order, and the last answer."""
        answers = []
        for frame in frames.unbind(1):
            state = self.step(frame, state)
            answers.append(state)
        picked = [answers[t] for t in emitted(len(answers), num_clips)]
        return self.project(torch.cat(picked, 1)), answers[-1]


def emitted(frames: int, num_clips: int) -> list[int]:
    """Frames whose answers stand for the video: evenly apart, counted back from the last one.

    More than `num_clips` where that doesn't divide the number of frames.
    """
    if not 1 <= num_clips <= frames:
        raise InvalidParameter(
            f"num_clips={num_clips} can't be had from {frames} frames; use 1 to {frames}."
        )
    apart = frames // num_clips
    return list(range((frames - 1) % apart, frames, apart))
