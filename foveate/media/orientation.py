"""Rotates photographs by their EXIF orientation."""

from __future__ import annotations

from PIL import Image, ImageOps


def upright(image: Image.Image) -> Image.Image:
    """The image with its EXIF orientation applied."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # Damaged EXIF data has no orientation, but the pixels are fine.
        return image
