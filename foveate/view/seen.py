"""The picture as the model sees it: cropped or padded as the processor does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from foveate.errors import InvalidParameter


def seen(image: Image.Image, processor: Any) -> Image.Image:
    """The picture without what the processor crops away and with what it pads, at full resolution.

    Args:
        image: the picture as it was given.
        processor: the model's. One that cuts pictures into tiles resizes them instead of cropping:
            the picture is returned as it is.
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


def seen_by_item(images: Sequence[Image.Image], processor: Any, items: int) -> list[Image.Image]:
    """What the model saw of pictures, one entry per visual item of the call.

    Args:
        images: the pictures of a question, in order.
        processor: the model's.
        items: visual items of the call. Families such as InternVL and Idefics3 turn a picture into
            several items, one per tile; the tiles are then taken from the processor.
    """
    if items == len(images):
        return [seen(image, processor) for image in images]
    tiles = _tiles(images, getattr(processor, "image_processor", processor))
    if len(tiles) != items:
        raise InvalidParameter(
            f"{len(images)} pictures became {items} visual items, and the processor makes "
            f"{len(tiles)} tiles of them; this call can't be drawn."
        )
    return tiles


def _tiles(images: Sequence[Image.Image], processor: Any) -> list[Image.Image]:
    """The pictures that a processor hands to the model, without what is padding only."""
    made = processor(images=list(images), return_tensors="np")
    pixels = made["pixel_values"]
    pixels = pixels.reshape(-1, *pixels.shape[-3:])
    if "pixel_attention_mask" in made:
        mask = made["pixel_attention_mask"]
        pixels = pixels[mask.reshape(-1, *mask.shape[-2:]).any((1, 2))]
    if getattr(processor, "do_normalize", False):
        mean, deviation = (
            np.reshape(x, (3, 1, 1)) for x in (processor.image_mean, processor.image_std)
        )
        pixels = pixels * deviation + mean
    pixels = np.rint(255 * pixels).clip(0, 255).astype(np.uint8)
    return [Image.fromarray(tile) for tile in pixels.transpose(0, 2, 3, 1)]


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
