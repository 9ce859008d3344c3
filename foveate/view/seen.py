"""The picture as the model sees it: cropped or padded as the processor does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from foveate.errors import InvalidParameter
from foveate.prompts import turn
from foveate.view.views import Views, separate_views


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
        image = _padded(image, _mean(images))
    size = _lengths(getattr(images, "size", None))
    crop = _lengths(getattr(images, "crop_size", None))
    if not getattr(images, "do_center_crop", False) or not size or not crop:
        return image
    return _cropped(image, size, crop)


def seen_by_item(
    images: Sequence[Image.Image], processor: Any, traces: Sequence[Any]
) -> list[Image.Image | Views]:
    """What the model saw of pictures, one entry per visual item of the call.

    Families such as InternVL make one item of each tile, and families such as Idefics3 one item of
    all tiles of a sample. The tiles are then taken from the processor, as the `Views` of each item.

    Args:
        images: the pictures of a question, in order.
        processor: the model's.
        traces: `att.report.traces` of the call.
    """
    counts = [separate_views(trace.layout) for trace in traces]
    if counts == [1] * len(images):
        return [
            _seen_untiled(image, processor, trace.layout)
            for image, trace in zip(images, traces, strict=True)
        ]
    tiles = _tiles(images, processor)
    if len(tiles) != sum(counts):
        raise InvalidParameter(
            f"{len(images)} pictures became {len(counts)} visual items with {sum(counts)} views, "
            f"and the processor makes {len(tiles)} tiles of them; this call can't be drawn."
        )
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    parts = [tiles[end - count : end] for end, count in zip(ends, counts, strict=True)]
    return [Views([p for p, _ in part], [name for _, name in part]) for part in parts]


def _seen_untiled(image: Image.Image, processor: Any, layout: Any) -> Image.Image:
    """What the model saw of a picture that is one item."""
    images = getattr(processor, "image_processor", processor)
    # LLaVA-OneVision pads the pictures of a question with several, instead of tiling them.
    if getattr(images, "image_grid_pinpoints", None) and layout.grid.t == 1:
        return _padded(image, _mean(images))
    return seen(image, processor)


def _tiles(images: Sequence[Image.Image], processor: Any) -> list[tuple[Image.Image, str]]:
    """The pictures that a processor hands to the model, with their names."""
    tiles = _pictures(_pixels(images, processor), getattr(processor, "image_processor", processor))
    counts = [len(tiles)]
    if len(images) > 1:
        counts = [len(_pixels([image], processor)) for image in images]
    names = [
        f"picture {i + 1}, {name}" if len(images) > 1 else name
        for i, count in enumerate(counts)
        for name in _names(count, getattr(processor, "image_processor", processor))
    ]
    if len(names) != len(tiles):
        raise InvalidParameter(
            f"The processor makes {len(tiles)} tiles of {len(images)} pictures together, but "
            f"{len(names)} of them one by one; this call can't be drawn."
        )
    return list(zip(tiles, names, strict=True))


def _pixels(images: Sequence[Image.Image], processor: Any) -> np.ndarray:
    """The tiles (n, 3, h, w) of pictures, as the model gets them in one question."""
    given: dict[str, Any] = {"images": [list(images)], "return_tensors": "pt"}
    if hasattr(processor, "tokenizer"):
        # With a prompt the processor tiles as it does for the model: its defaults apply.
        given["text"] = [turn(processor, "What?", len(images)).text(processor)]
    made = processor(**given)
    pixels = made["pixel_values"].numpy()
    if pixels.ndim < 4:
        return np.zeros((0, 3, 1, 1))
    pixels = pixels.reshape(-1, *pixels.shape[-3:])
    if "pixel_attention_mask" in made:
        mask = made["pixel_attention_mask"].numpy()
        pixels = pixels[mask.reshape(-1, *mask.shape[-2:]).any((1, 2))]
    return pixels


def _pictures(pixels: np.ndarray, processor: Any) -> list[Image.Image]:
    """Tiles (n, 3, h, w) as pictures."""
    if getattr(processor, "do_normalize", False):
        mean, deviation = (
            np.reshape(x, (3, 1, 1)) for x in (processor.image_mean, processor.image_std)
        )
        pixels = pixels * deviation + mean
    pixels = np.rint(255 * pixels).clip(0, 255).astype(np.uint8)
    return [Image.fromarray(tile) for tile in pixels.transpose(0, 2, 3, 1)]


def _names(count: int, processor: Any) -> list[str]:
    """What captions call the tiles of one picture."""
    if count == 1:
        return ["whole picture"]
    tiles = [f"tile {i + 1} of {count - 1}" for i in range(count - 1)]
    if hasattr(processor, "do_pan_and_scan"):
        return ["overview", *tiles]
    if hasattr(processor, "do_image_splitting") or hasattr(processor, "crop_to_patches"):
        return [*tiles, "overview"]
    return [f"view {i + 1}" for i in range(count)]


def _mean(processor: Any) -> tuple[int, ...]:
    """The colour of padding."""
    return tuple(int(255 * x) for x in getattr(processor, "image_mean", None) or (0, 0, 0))


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
