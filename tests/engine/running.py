"""Greedy generation with its logits, and a batch of two samples of different length."""

from __future__ import annotations

import torch

from tests.families import running, zoo


def generate(model, inputs, steps: int = 8, **options):
    """Last `steps` tokens (B, steps) and their logits (B, steps, V)."""
    run = running.generate(model, inputs, steps, **options)
    return run.tokens, run.logits


def pair(name: str, modality: str = "image"):
    """Two samples alone, and side by side with left padding."""
    samples = [zoo.sample(name, modality, i) for i in (0, 1)]
    return [zoo.batch(name, [s]) for s in samples], zoo.batch(name, samples)


def close(a, b, tolerance: float = 2e-4) -> bool:
    """Same tokens, logits within tolerance."""
    return torch.equal(a[0], b[0]) and float((a[1] - b[1]).abs().max()) < tolerance
