"""Images given as numpy arrays or torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from foveate.errors import MediaError
from foveate.media.colour import eight_bits

_CHANNELS = (1, 2, 3, 4)


def is_array(source: Any) -> bool:
    """Whether `source` is a numpy array or a torch tensor."""
    return isinstance(source, np.ndarray | Tensor)


def picture_of(source: np.ndarray | Tensor, name: str) -> Image.Image:
    """The image in an array (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels.

    Channels are grey, grey and alpha, RGB or RGBA. If both orders fit, an array has its channels
    last and a tensor has them first. See `eight_bits` for the values.
    """
    first = isinstance(source, Tensor)
    values = _values(source, name) if isinstance(source, Tensor) else source
    if values.ndim == 3:
        last = values.shape[2] in _CHANNELS and not (first and values.shape[0] in _CHANNELS)
        values = values if last else np.moveaxis(values, 0, 2)
    if values.ndim not in (2, 3) or values.ndim == 3 and values.shape[2] not in _CHANNELS:
        raise MediaError(
            f"{name} has the shape {tuple(source.shape)}; pass one image of shape (H, W), "
            "(H, W, 3) or (3, H, W)."
        )
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    return Image.fromarray(np.ascontiguousarray(eight_bits(values, name)))


def _values(source: Tensor, name: str) -> np.ndarray:
    if source.is_meta:
        raise MediaError(f"{name} is on the meta device and has no values; pass a real tensor.")
    source = source.detach().cpu()
    # numpy has no bfloat16.
    return (source.float() if source.is_floating_point() else source).numpy()
