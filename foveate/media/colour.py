"""Any kind of pixel to 8-bit RGB, without clipping and without black where nothing was painted."""

from __future__ import annotations

import numpy as np
from PIL import Image

from foveate.errors import MediaError

_WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """The image in mode RGB; transparent pixels show white, as on paper."""
    if image.mode in _WIDE or image.mode == "F":
        image = _to_8_bit(image, name)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError:
        raise MediaError(
            f"{name} has pixels of mode {image.mode!r}; save it as 8-bit RGB."
        ) from None


def _to_8_bit(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 bits, or of floats in [0, 1], to 8 bits; Pillow's own conversion would clip."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F" and low >= 0 and high <= 1:
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if image.mode != "F" and low >= 0 and high <= 65535:
        # 65535 / 255 = 257: white stays white.
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    raise MediaError(
        f"{name} holds values from {low:g} to {high:g}, so its white is not known; "
        "save it with 8 or 16 bits per channel."
    )
