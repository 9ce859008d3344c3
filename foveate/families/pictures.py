"""Resizes images, in the two formats in which processors return pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveate.errors import UnsupportedCall


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Images (..., C, H, W) at another size, bilinear with antialiasing."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    flat = pixels.reshape(-1, *pixels.shape[-3:]).float()
    small = interpolate(flat, (height, width), mode="bilinear", antialias=True)
    return small.to(pixels.dtype).reshape(*pixels.shape[:-2], height, width)


def resize_stacked(
    inputs: Mapping[str, Any], name: str, shapes: Sequence[tuple[int, int]], side: int
) -> dict[str, Any]:
    """The call with the stacked images `inputs[name]` resized; `side` pixels per token side."""
    if len(set(shapes)) > 1:
        raise UnsupportedCall(
            f"Images stacked in one tensor can't be resized to different shapes {set(shapes)}; "
            "encode them in separate calls."
        )
    rows, columns = shapes[0]
    return {**inputs, name: resized(inputs[name], rows * side, columns * side)}


def resize_patches(
    rows: Tensor, grids: Tensor, shapes: Sequence[tuple[int, int]], merges: Sequence[int], side: int
) -> tuple[Tensor, Tensor]:
    """Resize images given as patch rows (R, C * frames * side * side) with `grids` (items, 3).

    Rows are in blocks of merge x merge patches. Returns the new rows and grids.
    """
    out, start = [], 0
    sizes = grids.clone()
    for i, (t, h, w) in enumerate(grids.tolist()):
        item, merge = rows[start : start + t * h * w], merges[i]
        start += t * h * w
        new_h, new_w = (n * merge for n in shapes[i])
        if (new_h, new_w) != (h, w):
            pictures = resized(_unpatch(item, t, h, w, merge, side), new_h * side, new_w * side)
            item = _patch(pictures, new_h, new_w, merge, side)
        out.append(item)
        sizes[i, 1:] = sizes.new_tensor([new_h, new_w])
    return torch.cat(out), sizes


def _unpatch(rows: Tensor, t: int, h: int, w: int, m: int, side: int) -> Tensor:
    """Patch rows (t * h * w, 3 * frames * side * side) to images (t, 3 * frames, H, W)."""
    x = rows.view(t, h // m, w // m, m, m, -1, side, side)
    return x.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(t, -1, h * side, w * side)


def _patch(pictures: Tensor, h: int, w: int, m: int, side: int) -> Tensor:
    """Inverse of `_unpatch`."""
    t, channels = pictures.shape[:2]
    x = pictures.view(t, channels, h // m, m, side, w // m, m, side)
    return x.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(t * h * w, channels * side * side)
