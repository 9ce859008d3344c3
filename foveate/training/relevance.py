"""Relevance of visual tokens for an answer: gradient times attention, through all layers.

It stores the attention maps of all layers, so it is for small models and for training only.
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
    """Collects the attention maps (B, H, L, L) of all decoder layers, with gradients."""
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
    """Relevance (B, L) of every token for the answers, and whether each answer is correct (B,).

    For every answer token, the relevance of all tokens for its logit; the result is the mean.

    Args:
        model: the base model.
        inputs: prompts followed by their answers.
        labels: answer tokens, -100 elsewhere, (B, L).
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
    """One row (B, L) of the relevance matrix R; R <- R + A R over the layers, from R = 1.

    A is the mean over heads of relu(map * gradient). A single row needs no matrix products: it is
    propagated from the last layer back to the first.

    Args:
        row: the wanted row, one-hot (B, L).
        maps: attention maps (B, H, L, L) by layer.
        gradients: of the maps.
    """
    for attention, gradient in zip(reversed(maps), reversed(gradients), strict=True):
        layer = (attention * gradient).relu().mean(1)
        row = row + (row[:, None] @ layer)[:, 0]
    return row


def upper_half(scores: Tensor) -> Tensor:
    """Scores (B, n) with the lower half of each row set to 0, normalised to sum 1."""
    n = scores.shape[1]
    order = scores.argsort(dim=1, stable=True)
    kept = scores.scatter(1, order[:, : n // 2], 0.0)
    return kept / kept.sum(1, keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)


def overlap(scores: Tensor, truth: Tensor, share: float = 0.5) -> Tensor:
    """Overlap (B,) of the top `share` of `truth` (B, n) with the top `share` of `scores`."""
    k = max(1, int(share * scores.shape[1]))
    best = torch.zeros_like(scores).scatter_(1, truth.topk(k).indices, 1.0)
    return best.gather(1, scores.topk(k).indices).mean(1)
