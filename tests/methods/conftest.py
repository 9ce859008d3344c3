"""Items of several layouts and signals made up for them, so that methods run without a model."""

from __future__ import annotations

import pytest
import torch

from foveate.families.base import raster
from foveate.families.specials import newline_behind
from foveate.families.tiles import stitched
from foveate.signals import (
    ClassState,
    ProjectorInput,
    Signals,
    TextEmbeddings,
    VisionAttention,
    VisionKeys,
    VisionStates,
)

LAYOUTS = {
    "picture": raster(1, 6, 6),
    "wide": raster(1, 3, 7),
    "video": raster(4, 3, 4),
    "newlines": newline_behind(raster(1, 5, 4), 4),
    "tiled": stitched(4, (2, 2), (0, 0, 8, 8)),
    "unpadded": stitched(4, (2, 3), (1, 0, 6, 12)),
    "column": stitched(4, (3, 1), (0, 1, 12, 2)),
}
DIM, WIDTH, HEADS, KEY = 10, 8, 3, 5


def signals_for(method, tokens, seed=0, class_token=True):
    """Random values for all that a method needs; the projector is a fixed linear map."""
    g = torch.Generator().manual_seed(seed)
    b, n, _ = tokens.features.shape
    views = len(tokens.grid.views)
    weight = torch.randn(WIDTH, DIM, generator=g)
    shapes = {
        VisionAttention: (b, HEADS, n),
        VisionKeys: (b, HEADS, n, KEY),
        VisionStates: (b, n, WIDTH),
        ProjectorInput: (b, n, WIDTH),
        ClassState: (b, views, WIDTH),
        TextEmbeddings: (b, 7, DIM),
    }
    values = {}
    for need in method.needs:
        shape = shapes[type(need)]
        # Two blocks of a slice; two directions.
        if isinstance(getattr(need, "layer", None), tuple) or getattr(need, "rows", "") == "mutual":
            shape = (b, 2, *shape[1:])
        values[need] = torch.rand(shape, generator=g)
    if not class_token and ClassState() in values:
        values[ClassState()] = None
    return Signals(values, lambda x: x @ weight)


def tokens_for(layout, batch=2, seed=0):
    """Items of one layout with random features."""
    g = torch.Generator().manual_seed(seed)
    return layout.tokens(torch.randn(batch, layout.n, DIM, generator=g))


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request):
    return request.param


@pytest.fixture
def layouts():
    return LAYOUTS


@pytest.fixture
def make_signals():
    return signals_for


@pytest.fixture
def make_tokens():
    return tokens_for
