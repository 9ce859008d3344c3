"""The picture as it reaches the model: what CLIP processors crop away or pad is drawn so too."""

from __future__ import annotations

from typing import Any

from PIL import Image


def seen(image: Image.Image, processor: Any) -> Image.Image:
    """The picture without what the processor crops away and with what it pads, at full resolution.

    Processors that cut a picture into tiles squeeze it instead: it comes back as it is.
    """
    images = getattr(processor, "image_processor", processor)
    if getattr(images, "image_grid_pinpoints", None):
        return image
    if getattr(images, "do_pad", False) and hasattr(images, "pad_to_square"):
        mean = getattr(images, "image_mean", None) or (0, 0, 0)
        image = _padded(image, tuple(int(255 * value) for value in mean))
    size = _lengths(getattr(images, "size", None))
    crop = _lengths(getattr(images, "crop_size", None))
    if not getattr(images, "do_center_crop", False) or not size or not crop:
        return image
    return _cropped(image, size, crop)


def _padded(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """The picture in the middle of a square."""
    side = max(image.size)
    if image.width == image.height:
        return image
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _cropped(image: Image.Image, size: dict[str, int], crop: dict[str, int]) -> Image.Image:
    """The part that a centre crop to `crop` leaves after resizing to `size`."""
    width, height = image.size
    if "shortest_edge" in size:
        scale = size["shortest_edge"] / min(width, height)
        scaled = (width * scale, height * scale)
    else:
        scaled = (size["width"], size["height"])
    share = [min(1.0, c / s) for c, s in zip((crop["width"], crop["height"]), scaled, strict=True)]
    if min(share) == 1:
        return image
    left, top = width * (1 - share[0]) / 2, height * (1 - share[1]) / 2
    return image.crop((round(left), round(top), round(width - left), round(height - top)))


def _lengths(size: Any) -> dict[str, int]:
    """Entries of a size that transformers writes as a number, a dict or an object."""
    if isinstance(size, int):
        return {"shortest_edge": size, "width": size, "height": size}
    found = {}
    for name in ("shortest_edge", "width", "height"):
        value = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
        if value:
            found[name] = value
    return found
