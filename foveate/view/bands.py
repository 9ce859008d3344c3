"""What low spatial frequencies show of a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image


def low_pass(picture: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """The picture of its `shape` (rows, columns) lowest frequencies of a 2-D DCT, at its size."""
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    rows, columns = (_basis(n, k) for n, k in zip(pixels.shape, shape, strict=False))
    low = np.einsum("kh,hwc,lw->klc", rows, pixels, columns, optimize=True)
    shown = np.einsum("kh,klc,lw->hwc", rows, low, columns, optimize=True)
    return Image.fromarray(np.rint(shown).clip(0, 255).astype(np.uint8))


def _basis(n: int, k: int) -> np.ndarray:
    """The first k rows (k, n) of the orthonormal DCT-II of length n."""
    k = min(k, n)
    angle = np.pi / n * (np.arange(n) + 0.5) * np.arange(k)[:, None]
    basis = np.cos(angle) * np.sqrt(2 / n)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)
