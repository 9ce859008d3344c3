"""Any kind of pixel to 8-bit RGB, without clipping and without black where nothing was painted."""

from __future__ import annotations

import numpy as np
from PIL import Image

from foveate.errors import MediaError

_WIDE = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
# Their decoders hand on grey of 16 bits in an image of 32 bits.
_SCALED = ("PNG", "PPM", "JPEG2000")


def to_rgb(image: Image.Image, name: str, kind: str | None = None) -> Image.Image:
    """The image in mode RGB; transparent pixels show white, as on paper.

    kind: format of the file that it came from.
    """
    if image.mode in _WIDE or image.mode == "F":
        image = _to_8_bit(image, name, image.mode.startswith("I;16") or kind in _SCALED)
    try:
        if image.mode in _WITH_ALPHA or image.has_transparency_data:
            # Pillow goes from premultiplied grey to RGBA by way of grey with alpha only.
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        return image.convert("RGB")
    except ValueError:
        raise MediaError(
            f"{name} has pixels of mode {image.mode!r}; save it as 8-bit RGB."
        ) from None


def _to_8_bit(image: Image.Image, name: str, deep: bool) -> Image.Image:
    """Grey of more than 8 bits to grey of 8, with alpha where one value is transparent.

    deep: whole numbers are of 16 bits, however wide they are stored.
    """
    values = np.asarray(image)
    grey = eight_bits(values.astype(np.uint16) if deep and image.mode != "F" else values, name)
    made = Image.fromarray(grey)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        made.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return made


def eight_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Values of any type as uint8, or `MediaError` where nobody knows how much white is.

    Bytes are themselves, 16 bits and floats in [0, 1] are scaled. Wider whole numbers are bytes up
    to 255, and 16 bits where they need all of these; in between, white may be anything.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype.kind not in "iuf" or not values.size:
        raise MediaError(
            f"{name} holds values of type {values.dtype}; give 8-bit numbers, or floats in [0, 1]."
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
        f"{name} holds values from {low:g} to {high:g}, so its white is not known; "
        "save it with 8 or 16 bits per channel."
    )
