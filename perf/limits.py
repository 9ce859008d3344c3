"""What the machine makes of fewer rows: seconds of bare decoder layers, by how many run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import log
from typing import Any

import torch

from foveate.method import Method
from foveate.parts import RulePart
from perf.timing import interleaved, seconds

# Numbers of rows that are timed.
SIZES = 8


class Limits:
    """Seconds of a bare layer over numbers of rows, measured at some and read off between them.

    curve: (rows, seconds), ascending. No method that leaves tokens out can be faster than bare
    layers are on as many.
    """

    def __init__(self, model: Any, rows: set[int], rounds: int):
        least, most = min(rows), max(rows)
        ratio = (most / least) ** (1 / (SIZES - 1))
        sizes = sorted({round(least * ratio**i) for i in range(SIZES)})
        decoder = model.get_decoder()
        taken = interleaved({str(n): on_rows(decoder, n) for n in sizes}, rounds)
        self.curve = [(n, taken[str(n)] / len(decoder.layers)) for n in sizes]

    def of(self, method: Method) -> Limits | None:
        """Itself, None for methods that change what a layer does with its rows."""
        return None if any(isinstance(p, RulePart) for p in method.parts()) else self

    def seconds(self, rows: list[int]) -> float:
        """Of layers with so many rows each."""
        return sum(self._at(n) for n in rows)

    def _at(self, n: int) -> float:
        for (few, fast), (many, slow) in pairwise(self.curve):
            if n <= many:
                share = log(n / few) / log(many / few)
                return fast * (slow / fast) ** share
        return self.curve[-1][1]


def on_rows(decoder: Any, n: int, batch: int = 1) -> Callable[[], float]:
    """What times one prefill of the bare decoder on `n` rows of each sample."""
    weight = next(decoder.parameters())
    states = torch.randn(batch, n, decoder.config.hidden_size).to(weight.device, weight.dtype)
    return lambda: seconds(lambda: decoder(inputs_embeds=states, use_cache=True))
