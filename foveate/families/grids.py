"""Layouts of towers whose projector makes one token out of k x k patches of a grid."""

from __future__ import annotations

from functools import lru_cache

import torch

from foveate.families.base import raster
from foveate.tokens import Layout


@lru_cache(maxsize=512)
def blocks(t: int, h: int, w: int, k: int) -> Layout:
    """`t` steps of h x w tokens whose k * k patches follow one another in the tower."""
    plain = raster(t, h, w)
    rows = torch.arange(plain.n * k * k).view(plain.n, k * k)
    return Layout(position=plain.position, view=plain.view, special=plain.special, rows=rows)


@lru_cache(maxsize=512)
def pooled(t: int, h: int, w: int, k: int) -> Layout:
    """`t` views of h x w tokens, each over k x k patches of a tower that runs in raster order."""
    plain = raster(t, h, w)
    patches = torch.arange(t * h * k * w * k).view(t, h, k, w, k)
    rows = patches.transpose(2, 3).reshape(plain.n, k * k)
    return Layout(position=plain.position, view=plain.view, special=plain.special, rows=rows)
