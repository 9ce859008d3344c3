"""Selection overhead inside the vision encoder and inside the LLM, in whole calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from transformers import Qwen2Config

import foveate
from foveate.method import Method
from foveate.parts import EncodersPart, LayersPart
from perf.layers import untrained
from perf.selection_hooks import watched
from perf.shapes import QWEN2_05B, Shape
from perf.timing import Peak, seconds

# Narrow MLPs keep calls short. Token selection does not depend on them.
MLP = 64


def _shallow(layers: int) -> Qwen2Config:
    known = {**QWEN2_05B.text.to_dict(), "num_hidden_layers": layers, "layer_types": None}
    return Qwen2Config(**{**known, "intermediate_size": MLP})


# A whole CLIP-L with one decoder layer, and half of a decoder: selection after a layer does not
# depend on how many layers follow.
ENCODER = replace(QWEN2_05B, tower_layers=24, tower_mlp=MLP, text=_shallow(1))
DECODER = replace(QWEN2_05B, text=_shallow(12))


def methods() -> dict[str, tuple[Method, Shape]]:
    """All registered methods inside the vision encoder or inside the LLM, by slug."""
    found: dict[str, tuple[Method, Shape]] = {}
    for slug, method in untrained().items():
        parts = method.parts()
        if any(isinstance(part, EncodersPart) for part in parts):
            found[slug] = method, ENCODER
        elif any(isinstance(part, LayersPart) for part in parts):
            found[slug] = method, DECODER
    return found


def selection(
    model: Any, inputs: dict[str, torch.Tensor], method: Method, calls: int
) -> tuple[float, int]:
    """Median seconds of token selection per call, and the largest memory of one selection.

    The first of several calls is a warm-up.
    """
    peak, taken, most = Peak(), [0.0], 0

    def note(decide: Callable[[], Any]) -> Any:
        nonlocal most
        found: list[Any] = []

        def once() -> None:
            taken[-1] += seconds(lambda: found.append(decide()))

        most = max(most, peak.within(once))
        return found[0]

    with foveate.attach(model, method), watched(method, note):
        for _ in range(calls):
            model(**inputs, logits_to_keep=1)
            taken.append(0.0)
    return median(taken[:-1][min(1, calls - 1) :]), most


@torch.inference_mode()
def measure(pictures: tuple[int, int, int] = (1, 5, 20)) -> dict[str, tuple[list[float], int]]:
    """By method: seconds at two prompt sizes, and the largest memory at a third one."""
    found = {}
    for shape in (ENCODER, DECODER):
        model = shape.build(torch.float32, "cpu")
        for slug, (method, own) in methods().items():
            if own is shape:
                *times, (_, most) = (
                    selection(model, shape.inputs(model, n), method, 1 if n == pictures[-1] else 2)
                    for n in pictures
                )
                found[slug] = [time for time, _ in times], most
    return found
