"""What methods decide inside the vision tower and the language model, in whole calls."""

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
from perf.shapes import QWEN2_05B, Shape
from perf.timing import Peak, seconds
from perf.watch import watched

# What is decided doesn't depend on the MLPs, which are most of the time of a call.
MLP = 64


def _shallow(layers: int) -> Qwen2Config:
    known = {**QWEN2_05B.text.to_dict(), "num_hidden_layers": layers, "layer_types": None}
    return Qwen2Config(**{**known, "intermediate_size": MLP})


# A whole CLIP-L tower in front of one decoder layer, and half of the decoder: what a boundary
# decides doesn't depend on how many layers follow.
SEEING = replace(QWEN2_05B, tower_layers=24, tower_mlp=MLP, text=_shallow(1))
READING = replace(QWEN2_05B, text=_shallow(12))


def deciders() -> dict[str, tuple[Method, Shape]]:
    """All registered methods that merge in the tower or choose at boundaries, by slug."""
    found: dict[str, tuple[Method, Shape]] = {}
    for slug, method in untrained().items():
        parts = method.parts()
        if any(isinstance(part, EncodersPart) for part in parts):
            found[slug] = method, SEEING
        elif any(isinstance(part, LayersPart) for part in parts):
            found[slug] = method, READING
    return found


def deciding(
    model: Any, inputs: dict[str, torch.Tensor], method: Method, calls: int
) -> tuple[float, int]:
    """Median seconds of all that a method decides per call, and the most memory of one decision.

    The first of several calls warms caches up.
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
    """Per method the seconds at two sizes, and the most memory at a third one."""
    found = {}
    for shape in (SEEING, READING):
        model = shape.build(torch.float32, "cpu")
        for slug, (method, own) in deciders().items():
            if own is shape:
                *times, (_, most) = (
                    deciding(model, shape.inputs(model, n), method, 1 if n == pictures[-1] else 2)
                    for n in pictures
                )
                found[slug] = [time for time, _ in times], most
    return found
