"""Put one question about pictures to a model under a method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from foveate.method import Method
from foveate.prompts import Turn, turn

_SMALL = 20_000_000
"""Parameters below which one thread is enough."""


@dataclass(frozen=True)
class Answer:
    """What the model said, and the report of the call that made it say so."""

    text: str
    report: Any


def answer(
    model: Any,
    processor: Any,
    images: Sequence[Image.Image],
    question: str,
    method: Method,
    max_new_tokens: int = 64,
) -> Answer:
    """Greedy answer to `question` about `images`, with `method` attached for this one call."""
    import torch

    import foveate

    asked = turn(processor, question, len(images))
    inputs = prompt(processor, images, asked).to(model.device)
    for name, value in inputs.items():
        if torch.is_floating_point(value):
            inputs[name] = value.to(model.dtype)
    with torch.no_grad(), threads(model), foveate.attach(model, method) as attached:
        out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        report = attached.report
    new = out[0, inputs["input_ids"].shape[1] :]
    return Answer(processor.decode(new, skip_special_tokens=True).strip(), report)


@contextmanager
def threads(model: Any) -> Iterator[None]:
    """One thread for a small model: several would wait for each other longer than they compute."""
    import torch

    before = torch.get_num_threads()
    small = sum(p.numel() for p in model.parameters()) < _SMALL
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prompt(processor: Any, images: Sequence[Image.Image], asked: Turn) -> Any:
    """The processor's inputs for one user turn."""
    if not getattr(processor, "chat_template", None):
        text = asked.text(processor)
        return processor(images=list(images), text=text, return_tensors="pt")
    return processor.apply_chat_template(
        [{"role": "user", "content": asked.content(list(images))}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
