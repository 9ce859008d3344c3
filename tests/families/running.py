"""Running a model on samples, and comparing what came out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import zoo

TOLERANCE = 2e-4
STEPS = 12


@dataclass(frozen=True)
class Run:
    """What `generate` said: new tokens (B, T), their logits (B, T, V) and everything else."""

    tokens: Tensor
    logits: Tensor
    output: Any

    def row(self, b: int) -> tuple[Tensor, Tensor]:
        """Tokens and logits of one sample."""
        return self.tokens[b], self.logits[b]


def generate(model, inputs: dict[str, Any], steps: int = STEPS, **how) -> Run:
    """Greedy generation with its logits."""
    output = model.generate(
        **inputs,
        max_new_tokens=steps,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **how,
    )
    return Run(output.sequences[:, -steps:], torch.stack(output.logits, 1), output)


@cache
def bare(name: str, modality: str, attention: str, i: int) -> Run:
    """The bare model on sample i."""
    inputs = zoo.batch(name, [zoo.sample(name, modality, i)])
    return generate(zoo.model(name, attention), inputs)


def distance(a: tuple[Any, Tensor], b: tuple[Any, Tensor]) -> float:
    """Largest difference of logits, over the shared steps up to the first unequal token."""
    steps = min(len(a[0]), len(b[0]))
    same = torch.as_tensor(a[0])[:steps] == torch.as_tensor(b[0])[:steps]
    alike = len(same) if same.all() else int(same.long().argmin()) + 1
    return (a[1][:alike] - b[1][:alike]).abs().max().item()


def assert_equal(a: tuple[Any, Tensor], b: tuple[Any, Tensor]) -> None:
    """Equal tokens, and logits within the tolerance."""
    assert distance(a, b) < TOLERANCE
    assert torch.equal(torch.as_tensor(a[0]), torch.as_tensor(b[0]))


def assert_unequal(a: tuple[Any, Tensor], b: tuple[Any, Tensor]) -> None:
    """Far beyond what rounding explains."""
    assert distance(a, b) > 50 * TOLERANCE
