"""Turn a photograph the way its camera says it was held."""

from __future__ import annotations

from PIL import Image, ImageOps


def upright(image: Image.Image) -> Image.Image:
    """The image with its EXIF orientation applied."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # Damaged EXIF says nothing about the orientation; the pixels are fine.
        return image
