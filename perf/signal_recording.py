"""Time to record and pool the signals that methods before the LLM read in the vision encoder."""

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
from perf.selection_in_model import ENCODER
from perf.timing import seconds


@contextmanager
def watched(note: Callable[[Callable[[], Any]], Any]) -> Iterator[None]:
    """Let `note` run the recording in the vision encoder and the pooling of signals."""

    def around(run: Callable) -> Callable:
        return lambda *args: note(lambda: run(*args))

    with (
        patch.object(tower, "_seen", around(tower._seen)),
        patch.object(Record, "_signals", around(Record._signals)),
    ):
        yield


def reads_encoder(method: Method) -> bool:
    """Whether a method before the LLM reads signals of the vision encoder."""
    needs = [n for p in method.parts() if isinstance(p, TokensPart) for n in p.needs]
    return any(not isinstance(need, TextEmbeddings) for need in needs)


def recording(model: Any, inputs: dict[str, torch.Tensor], method: Method, calls: int) -> float:
    """Median seconds per call for the signals of a method; the first call is a warm-up."""
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
    """By method: seconds for its signals in a whole CLIP-L, at two numbers of images."""
    readers = {slug: method for slug, method in methods.items() if reads_encoder(method)}
    found = {slug: [0.0 for _ in pictures] for slug in methods}
    if readers:
        model = ENCODER.build(torch.float32, "cpu")
        for i, n in enumerate(pictures):
            inputs = ENCODER.inputs(model, n)
            for slug, method in readers.items():
                found[slug][i] = recording(model, inputs, method, calls)
    return found
