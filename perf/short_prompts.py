"""Prefill time of the full model on short prompts: the largest speed-up the hardware allows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import log
from typing import Any

import torch

from foveate.method import Method
from foveate.parts import RulePart
from perf.timing import interleaved, seconds

# How many prompt lengths are timed.
SIZES = 8


class ShortPrompts:
    """Seconds of a decoder layer by the number of tokens, measured at some and interpolated.

    A method that prunes tokens cannot be faster than the full model on a prompt of that length.

    Attributes:
        curve: (tokens, seconds per layer), ascending.

    Args:
        model: the full model.
        rows: numbers of tokens per layer that will be looked up.
        rounds: interleaved runs per length.
    """

    def __init__(self, model: Any, rows: set[int], rounds: int):
        least, most = min(rows), max(rows)
        ratio = (most / least) ** (1 / (SIZES - 1))
        sizes = sorted({round(least * ratio**i) for i in range(SIZES)})
        decoder = model.get_decoder()
        taken = interleaved({str(n): on_rows(decoder, n) for n in sizes}, rounds)
        self.curve = [(n, taken[str(n)] / len(decoder.layers)) for n in sizes]

    def of(self, method: Method) -> ShortPrompts | None:
        """Itself; None for methods that change what a layer computes."""
        return None if any(isinstance(p, RulePart) for p in method.parts()) else self

    def seconds(self, rows: list[int]) -> float:
        """Time of the decoder whose layers process these numbers of tokens."""
        return sum(self._at(n) for n in rows)

    def _at(self, n: int) -> float:
        for (few, fast), (many, slow) in pairwise(self.curve):
            if n <= many:
                share = log(n / few) / log(many / few)
                return fast * (slow / fast) ** share
        return self.curve[-1][1]


def on_rows(decoder: Any, n: int, batch: int = 1) -> Callable[[], float]:
    """Times one prefill of the full decoder on `n` tokens per sample."""
    weight = next(decoder.parameters())
    states = torch.randn(batch, n, decoder.config.hidden_size).to(weight.device, weight.dtype)
    return lambda: seconds(lambda: decoder(inputs_embeds=states, use_cache=True))
