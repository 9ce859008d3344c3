"""Ask a model one question about images or a video, with a method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

import foveate
from foveate.method import Method
from foveate.model_inputs import images_of, model_inputs
from foveate.report import Report

_SMALL = 20_000_000
"""Parameters below which one CPU thread is faster than several."""


@dataclass(frozen=True)
class Answer:
    """What the model answered, and the report of that call."""

    text: str
    report: Report


def answer(
    model: Any,
    processor: Any,
    images: Sequence[Any],
    question: str,
    method: Method,
    max_new_tokens: int = 64,
    record_scores: bool = False,
) -> Answer:
    """Greedy answer to `question` about `images`, with `method` attached for this call only."""
    inputs = model_inputs(model, processor, [question], [images_of(images)])
    return answer_to(model, processor, inputs, method, max_new_tokens, record_scores)


def answer_to(
    model: Any,
    processor: Any,
    inputs: dict[str, Any],
    method: Method,
    max_new_tokens: int,
    record_scores: bool = False,
) -> Answer:
    """Greedy answer to a prompt of one row, with `method` attached for this call only."""
    attached = foveate.attach(model, method, record_scores=record_scores)
    with torch.no_grad(), few_threads(model), attached:
        out = model.generate(**inputs, **greedy(max_new_tokens))
        report = attached.report
    new = out[0, inputs["input_ids"].shape[1] :]
    return Answer(processor.decode(new, skip_special_tokens=True).strip(), report)


def greedy(max_new_tokens: int) -> dict[str, Any]:
    """Arguments of `generate` for greedy decoding."""
    return {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}


@contextmanager
def few_threads(model: Any) -> Iterator[None]:
    """One CPU thread for a small model, which several threads would make slower."""
    before = torch.get_num_threads()
    small = sum(p.numel() for p in model.parameters()) < _SMALL
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
