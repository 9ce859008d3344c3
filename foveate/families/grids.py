"""Layouts for projectors that make one token of several patches of a grid."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveate.families.base import raster
from foveate.tokens import Layout


@lru_cache(maxsize=128)
def in_blocks(t: int, h: int, w: int, k: int) -> Layout:
    """`t` steps of h x w tokens, each made of k * k consecutive encoder rows."""
    rows = torch.arange(t * h * w * k * k).view(-1, k * k)
    return replace(raster(t, h, w), rows=rows)


@lru_cache(maxsize=128)
def pooled(t: int, h: int, w: int, k: int) -> Layout:
    """`t` views of h x w tokens, each pooled over k x k patches in raster order."""
    patches = torch.arange(t * h * k * w * k).view(t, h, k, w, k)
    return replace(raster(t, h, w), rows=patches.transpose(2, 3).reshape(-1, k * k))


@lru_cache(maxsize=128)
def shrunk(t: int, h: int, w: int, new_h: int, new_w: int) -> Layout:
    """`t` views of h x w encoder rows, each interpolated to new_h x new_w tokens."""
    cells, weights = bilinear(h, w, new_h, new_w)
    start = torch.arange(t).view(t, 1, 1) * h * w
    rows = torch.where(cells < 0, cells, cells + start).flatten(0, 1)
    return replace(raster(t, new_h, new_w), rows=rows, weights=weights.repeat(t, 1))


def bilinear(h: int, w: int, new_h: int, new_w: int) -> tuple[Tensor, Tensor]:
    """The cells and weights of a bilinear interpolation from (h, w) to (new_h, new_w).

    Returns the cells (new_h * new_w, <=4) that each new cell is made of, -1 where fewer, and their
    weights.
    """
    (y, wy), (x, wx) = _taps(h, new_h), _taps(w, new_w)
    weights = (wy[:, None, :, None] * wx[None, :, None, :]).reshape(new_h * new_w, -1)
    cells = (y[:, None, :, None] * w + x[None, :, None, :]).reshape(new_h * new_w, -1)
    return cells.masked_fill(weights == 0, -1), weights


def _taps(n: int, new: int) -> tuple[Tensor, Tensor]:
    """The cells (new, <=2) that linear interpolation reads on one axis, and their weights."""
    # Interpolating unit vectors gives exactly the weights that the model uses.
    weights, cells = interpolate(torch.eye(n)[None], size=new, mode="linear")[0].topk(min(n, 2), 0)
    return cells.T, weights.T
