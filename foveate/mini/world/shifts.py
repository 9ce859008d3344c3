"""Image corruptions, to test a model outside its training domain.

Seven kinds at five severities, as in ImageNet-C, with strengths for small images.
"""

import io

import numpy as np
from PIL import Image, ImageFilter

from .keys import WorldError

SEVERITIES = (1, 2, 3, 4, 5)
_NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)  # standard deviation, of a range of 1
_BLUR = (0.4, 0.7, 1.0, 1.4, 2.0)  # radius, in 64ths of the side
_CONTRAST = (0.7, 0.5, 0.4, 0.3, 0.2)  # what is left of it
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # what is added
_PIXELATE = (0.8, 0.65, 0.5, 0.4, 0.3)  # side that is left
_JPEG = (30, 20, 12, 8, 4)  # quality
_CAST = (0.2, 0.35, 0.5, 0.65, 0.8)  # share of the tint
_TINT = np.array((1.0, 0.7, 0.3))  # an evening lamp


def _noise(x, strength, rng):
    return x + rng.normal(0, strength, x.shape)


def _contrast(x, strength, rng):
    mean = x.mean((0, 1))
    return mean + strength * (x - mean)


def _brightness(x, strength, rng):
    return x + strength


def _cast(x, strength, rng):
    return x * (1 - strength + strength * _TINT)


def _blur(image, strength, size):
    return image.filter(ImageFilter.GaussianBlur(strength * size / 64))


def _pixelate(image, strength, size):
    small = image.resize((max(1, round(strength * size)),) * 2, Image.Resampling.BOX)
    return small.resize((size, size), Image.Resampling.NEAREST)


def _jpeg(image, strength, size):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=strength)
    return Image.open(file).convert("RGB")


_ON_VALUES = {
    "noise": (_noise, _NOISE),
    "contrast": (_contrast, _CONTRAST),
    "brightness": (_brightness, _BRIGHTNESS),
    "cast": (_cast, _CAST),
}
_ON_IMAGES = {
    "blur": (_blur, _BLUR),
    "pixelate": (_pixelate, _PIXELATE),
    "jpeg": (_jpeg, _JPEG),
}
SHIFTS = (*_ON_VALUES, *_ON_IMAGES)


def shifted(pixels: np.ndarray, shift: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The image uint8 (S, S, 3) with a corruption of a severity from 1 to 5."""
    if shift not in SHIFTS:
        raise WorldError(f"unknown shift {shift!r}: use one of {', '.join(SHIFTS)}.")
    if severity not in SEVERITIES:
        raise WorldError(f"severity={severity!r} is out of range: use 1 to 5.")
    if shift in _ON_IMAGES:
        change, strengths = _ON_IMAGES[shift]
        return np.asarray(change(Image.fromarray(pixels), strengths[severity - 1], len(pixels)))
    change, strengths = _ON_VALUES[shift]
    values = change(pixels.astype(np.float64) / 255, strengths[severity - 1], rng)
    return (values.clip(0, 1) * 255).round().astype(np.uint8)
