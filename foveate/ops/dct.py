"""Discrete cosine transforms of token grids, as small matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor

from foveate.ops.transfer import on_device


@lru_cache(maxsize=512)
def dct_matrix(n: int, norm: str | None = "ortho") -> Tensor:
    """DCT-II of n values as a matrix (n, n) in float64; row k is frequency k.

    Args:
        n: Number of values.
        norm: "ortho" for an orthogonal matrix; None for 2 sum_j x_j cos(pi (2 j + 1) k / 2 n).
    """
    steps = torch.arange(n, dtype=torch.float64)
    waves = torch.cos(math.pi / (2 * n) * (2 * steps + 1) * steps[:, None])
    return 2 * waves / _lengths(n)[:, None] if norm == "ortho" else 2 * waves


@lru_cache(maxsize=512)
def idct_matrix(n: int, norm: str | None = "ortho") -> Tensor:
    """Inverse of `dct_matrix(n, norm)`."""
    back = dct_matrix(n, "ortho").T
    return back if norm == "ortho" else back / _lengths(n)


@lru_cache(maxsize=512)
def low_pass_matrix(n: int, r: int, norm: str | None = "ortho") -> Tensor:
    """Matrix (r, n) from n values to the r values with the r lowest frequencies."""
    return idct_matrix(r, norm) @ dct_matrix(n, norm)[:r]


def low_pass(x: Tensor, widths: Sequence[int], norm: str | None = "ortho") -> Tensor:
    """Low frequencies of x (..., H, W, C) as a smaller grid in raster order, (..., K, C).

    A constant grid is scaled: with norm "ortho" by the square root of H W over rows times columns
    of the new grid, with None by that ratio itself.

    Args:
        x: (..., H, W, C).
        widths: Number of columns of each new row; K is their sum.
        norm: See `dct_matrix`.
    """
    x, h, w = _wide(x), x.shape[-3], x.shape[-2]
    tall = _like(low_pass_matrix(h, len(widths), norm), x)
    rows = (tall @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
    parts, done = [], 0
    for columns, run in groupby(widths):
        count = len(list(run))
        part = _like(low_pass_matrix(w, columns, norm), x) @ rows[..., done : done + count, :, :]
        parts.append(part.flatten(-3, -2))
        done += count
    return torch.cat(parts, -2)


def _lengths(n: int) -> Tensor:
    """Norms (n,) of the rows of the DCT-II without norm."""
    lengths = torch.full((n,), math.sqrt(2 * n), dtype=torch.float64)
    lengths[0] = 2 * math.sqrt(n)
    return lengths


def _like(matrix: Tensor, x: Tensor) -> Tensor:
    """A CPU matrix with the dtype and device of x."""
    return on_device(matrix.to(x.dtype), x.device)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
