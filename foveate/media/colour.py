"""Converts pixels of any mode to 8-bit RGB, without clipping; transparency becomes white."""

from __future__ import annotations

import numpy as np
from PIL import Image

from foveate.errors import MediaError

_WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
# The decoders of these formats return 16-bit grey in a 32-bit image.
_SCALED = ("PNG", "PPM", "JPEG2000")


def to_rgb(image: Image.Image, name: str, kind: str | None = None) -> Image.Image:
    """The image in mode RGB, with transparent pixels on white.

    Args:
        image: The image.
        name: Name for error messages.
        kind: Format of the file that the image was read from.
    """
    if image.mode in _WIDE or image.mode == "F":
        image = _to_8_bit(image, name, image.mode.startswith("I;16") or kind in _SCALED)
    try:
        if image.mode in _WITH_ALPHA or image.has_transparency_data:
            # Pillow converts premultiplied grey to RGBA only through grey with alpha.
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        return image.convert("RGB")
    except ValueError:
        raise MediaError(
            f"{name} has the unsupported pixel mode {image.mode!r}; save it as 8-bit RGB."
        ) from None


def _to_8_bit(image: Image.Image, name: str, deep: bool) -> Image.Image:
    """Convert grey of more than 8 bits to 8 bits, with alpha where one value is transparent.

    `deep`: integers are 16-bit values, whatever type they are stored in.
    """
    values = np.asarray(image)
    grey = eight_bits(values.astype(np.uint16) if deep and image.mode != "F" else values, name)
    made = Image.fromarray(grey)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        made.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return made


def eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Values of any type as uint8; `MediaError` where the value of white is ambiguous.

    8-bit values are unchanged. 16-bit values and floats in [0, 1] are scaled. Wider integers count
    as 8-bit if none exceeds 255, and as 16-bit if the largest exceeds 32767.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype.kind not in "iuf" or not values.size:
        raise MediaError(
            f"{name} has values of type {values.dtype}; pass 8-bit integers or floats in [0, 1]."
        )
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if low >= 0 and high <= 1:
            return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    elif values.dtype == np.uint16 or low >= 0 and 32767 < high <= 65535:
        # 65535 / 255 = 257: white stays white.
        return np.rint(values / 257).astype(np.uint8)
    elif low >= 0 and high <= 255 and high != 1:
        return values.astype(np.uint8)
    raise MediaError(
        f"{name} has values from {low:g} to {high:g}, so its white is not known; use 8 or 16 bits "
        "per channel, or floats in [0, 1]."
    )
