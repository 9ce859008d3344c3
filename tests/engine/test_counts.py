"""What the host is told of the columns at a boundary is what the tensors say."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch

import foveate
from foveate.method import Method
from foveate.parts import DetourPart, LayersPart
from tests.families import zoo
from tests.families.halves import HalfAt


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Reads(Method, LayersPart):
    """Drops nothing, keeps what it saw in front of every layer."""

    slug = "reads"
    seen: list = field(default_factory=list)

    def boundaries(self, layers):
        return tuple(range(layers))

    def at_boundary(self, k, layers, state):
        self.seen.append(state)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Around(Method, DetourPart):
    """Every second visual column goes around a layer, which sees the rest only."""

    slug = "around"
    seen: list = field(default_factory=list)

    def layers(self, layers):
        return (layers - 1,)

    def runs(self, i, layers, state):
        self.seen.append(state)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LastGoes(Method, LayersPart):
    """The last item of every row is dropped whole."""

    slug = "last_goes"

    def boundaries(self, layers):
        return (1,)

    def at_boundary(self, k, layers, state):
        return state.item < state.item.amax(1, keepdim=True)


CASES = [
    ("llava", "image"),
    ("qwen2_5_vl", "image"),
    ("qwen3_vl", "video"),
    ("llava_next", "image"),
]


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("front", [None, 0.5])
@pytest.mark.parametrize(("name", "modality"), CASES)
def test_counts_are_those_of_the_tensors(name, modality, front, right):
    samples = [zoo.sample(name, modality, i) for i in (0, 1)]
    reads, around = Reads(), Around()
    method = reads + HalfAt(k=2) + LastGoes() + around
    if front is not None:
        method = foveate.Uniform(keep=front) + method
    inputs = zoo.batch(name, samples)
    if right:
        inputs = flipped(inputs)
    with torch.no_grad(), foveate.attach(zoo.model(name), method):
        zoo.model(name)(**inputs)
    assert len(reads.seen) == 5 and len(around.seen) == 1
    for state in reads.seen + around.seen:
        known, read = state.known, replace(state, counts=None).known
        items = [len(row) for row in read.held]
        assert [row[:n] for row, n in zip(known.held, items, strict=True)] == read.held
        assert not any(any(row[n:]) for row, n in zip(known.held, items, strict=True))
        assert known.entered == read.entered and known.text == read.text
        assert known.asking >= read.asking and known.frames >= read.frames
        since = (state.valid & ~state.visual & (state.visual.cumsum(1) > 0)).sum(1)
        assert all(n >= m for n, m in zip(known.since, since.tolist(), strict=True))


def flipped(inputs):
    """The same rows, padded on the right."""
    mask = inputs["attention_mask"]
    order = (1 - mask).argsort(dim=1, stable=True)
    wide = {k: v.gather(1, order) for k, v in inputs.items() if v.shape[:2] == mask.shape}
    return {**inputs, **wide}


def test_bounds_are_tight_where_they_can_be():
    reads = Reads()
    inputs = zoo.batch("llava", [zoo.sample("llava", "image", i) for i in (0, 1)])
    with torch.no_grad(), foveate.attach(zoo.model("llava"), reads):
        zoo.model("llava")(**inputs)
    read = replace(reads.seen[0], counts=None).known
    assert reads.seen[0].known.asking == read.asking and reads.seen[0].known.behind == read.behind
