"""What the signals cost that methods read of the vision tower: recorded, pooled and handed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

import foveate
from foveate.engine.tower import recording as tower
from foveate.engine.tower.items import Record
from foveate.method import Method
from foveate.parts import TokensPart
from foveate.signals import TextEmbeddings
from perf.deciding import SEEING
from perf.timing import seconds


@contextmanager
def watched(note: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """Let `note` call what looks into the tower, and what hands the signals to a method."""

    def around(run: Callable) -> Callable:
        return lambda *args: note(lambda: run(*args))

    with (
        patch.object(tower, "_seen", around(tower._seen)),
        patch.object(Record, "_signals", around(Record._signals)),
    ):
        yield


def looks(method: Method) -> bool:
    """Whether a method in front of the language model reads anything of the vision tower."""
    needs = [n for p in method.parts() if isinstance(p, TokensPart) for n in p.needs]
    return any(not isinstance(need, TextEmbeddings) for need in needs)


def recording(model: Any, inputs: dict[str, torch.Tensor], method: Method, calls: int) -> float:
    """Median seconds that the signals of a method take of a call; the first call warms caches."""
    taken = [0.0]

    def note(run: Callable[[], Any]) -> Any:
        found: list[Any] = []
        taken[-1] += seconds(lambda: found.append(run()))
        return found[0]

    with foveate.attach(model, method), watched(note):
        for _ in range(calls):
            model(**inputs, logits_to_keep=1)
            taken.append(0.0)
    return median(taken[1:-1])


@torch.inference_mode()
def measure(
    methods: Mapping[str, Method], pictures: tuple[int, int] = (1, 5), calls: int = 4
) -> dict[str, list[float]]:
    """Per method the seconds of its signals at two numbers of pictures, of a whole CLIP-L tower."""
    seeing = {slug: method for slug, method in methods.items() if looks(method)}
    found = {slug: [0.0 for _ in pictures] for slug in methods}
    if seeing:
        model = SEEING.build(torch.float32, "cpu")
        for i, n in enumerate(pictures):
            inputs = SEEING.inputs(model, n)
            for slug, method in seeing.items():
                found[slug][i] = recording(model, inputs, method, calls)
    return found
