"""Which visual tokens an answer depends on: gradient times attention, through all layers.

Every layer's attention maps are made and kept for the gradients, so this is for small models and
for training alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from foveate.training.batches import IGNORED


@contextmanager
def attention_maps(model: Any) -> Iterator[list[Tensor]]:
    """Collects the decoder's maps (B, H, L, L) of every layer, in order, as parts of the graph."""
    decoder, maps = model.get_decoder(), []
    before = decoder.config._attn_implementation
    model.enable_input_require_grads()
    handles = [
        layer.self_attn.register_forward_hook(lambda m, a, out: maps.append(out[1]))
        for layer in decoder.layers
    ]
    decoder.set_attn_implementation("eager")
    try:
        yield maps
    finally:
        decoder.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
        model.disable_input_require_grads()


@torch.enable_grad()
def relevance(model: Any, inputs: dict[str, Any], labels: Tensor) -> tuple[Tensor, Tensor]:
    """How much the answers depend on every column, (B, L), and whether all of each is right, (B,).

    inputs: prompts with their answers. labels (B, L): answer tokens, -100 elsewhere. Per answer
    token the logit that gives it is explained; the mean over tokens counts.
    """
    with attention_maps(model) as maps:
        logits = model(**inputs, use_cache=False).logits
    told = labels != IGNORED
    wrong = (logits[:, :-1].argmax(-1) != labels[:, 1:]) & told[:, 1:]
    total = torch.zeros(labels.shape, device=labels.device)
    for column in told.any(0).nonzero()[:, 0].tolist():
        own = told[:, column]
        chosen = logits[own, column - 1].gather(1, labels[own, column, None])
        gradients = torch.autograd.grad(chosen.sum(), maps, retain_graph=True)
        row = torch.zeros_like(total)
        row[own, column - 1] = 1
        total += explained(row, [m.detach() for m in maps], gradients)
    return total / told.sum(1, keepdim=True).clamp(min=1), ~wrong.any(1)


def explained(row: Tensor, maps: list[Tensor], gradients: tuple[Tensor, ...]) -> Tensor:
    """Rows (B, L) of R, where R <- R + A R from the first layer to the last, R = 1 before.

    row (B, L): which row is asked for, one-hot. A: mean over heads of relu(map * gradient). One row
    needs no product of whole maps: it runs back from the last layer.
    """
    for attention, gradient in zip(reversed(maps), reversed(gradients), strict=True):
        layer = (attention * gradient).relu().mean(1)
        row = row + (row[:, None] @ layer)[:, 0]
    return row


def upper_half(scores: Tensor) -> Tensor:
    """Scores (B, n) with the lower half of each row at 0, as shares that sum to 1."""
    n = scores.shape[1]
    order = scores.argsort(dim=1, stable=True)
    kept = scores.scatter(1, order[:, : n // 2], 0.0)
    return kept / kept.sum(1, keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)


def overlap(scores: Tensor, truth: Tensor, share: float = 0.5) -> Tensor:
    """Share (B,) of the best of `truth` (B, n) that are among the best of `scores` (B, n)."""
    k = max(1, int(share * scores.shape[1]))
    best = torch.zeros_like(scores).scatter_(1, truth.topk(k).indices, 1.0)
    return best.gather(1, scores.topk(k).indices).mean(1)
