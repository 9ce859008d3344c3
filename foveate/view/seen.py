"""The part of a picture that reaches the model: processors of CLIP cut off what is not square."""

from __future__ import annotations

from typing import Any

from PIL import Image


def seen(image: Image.Image, processor: Any) -> Image.Image:
    """The picture without what the processor's centre crop removes, at its original resolution."""
    images = getattr(processor, "image_processor", processor)
    size = _lengths(getattr(images, "size", None))
    crop = _lengths(getattr(images, "crop_size", None))
    if not getattr(images, "do_center_crop", False) or not size or not crop:
        return image
    width, height = image.size
    if "shortest_edge" in size:
        scale = size["shortest_edge"] / min(width, height)
        scaled = (width * scale, height * scale)
    else:
        scaled = (size["width"], size["height"])
    share = [min(1.0, c / s) for c, s in zip((crop["width"], crop["height"]), scaled, strict=True)]
    left, top = width * (1 - share[0]) / 2, height * (1 - share[1]) / 2
    box = (round(left), round(top), round(width - left), round(height - top))
    return image.crop(box)


def _lengths(size: Any) -> dict[str, int]:
    """Entries of a size that transformers writes as a number, a dict or an object."""
    if isinstance(size, int):
        return {"shortest_edge": size, "width": size, "height": size}
    names = ("shortest_edge", "width", "height")
    found = {}
    for name in names:
        value = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
        if value:
            found[name] = value
    return found
