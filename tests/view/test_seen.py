"""The part of a picture that a processor lets through."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    GotOcr2ImageProcessor,
    LlavaImageProcessor,
    LlavaNextImageProcessor,
)

from foveate.errors import InvalidParameter
from foveate.families.base import raster
from foveate.view import seen, seen_by_item
from tests.view.tracing import trace_of

ITEM = trace_of(raster(1, 1, 1), [0])


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (64, 64), (640, 480)])
def test_agrees_with_the_crop_of_clip(size):
    processor = CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=64)
    blotches = Image.effect_noise((10, 10), 120).convert("RGB")
    picture = blotches.resize(size, Image.Resampling.BICUBIC)
    part = seen(picture, processor)
    assert part.width == part.height == min(size)
    whole = processor(picture, return_tensors="np")["pixel_values"]
    cropped = processor(part, return_tensors="np")["pixel_values"]
    # The processor rounds to whole pixels of the small picture, which `seen` needn't.
    assert np.abs(whole - cropped).mean() < 0.12


def test_no_crop_is_the_whole_picture():
    picture = Image.new("RGB", (300, 100))
    assert seen(picture, CLIPImageProcessor(do_center_crop=False)) is picture
    assert seen(picture, object()) is picture


def test_tiles_show_the_whole_picture():
    processor = LlavaNextImageProcessor(size={"shortest_edge": 64}, crop_size=64)
    picture = Image.new("RGB", (300, 100))
    assert seen(picture, processor) is picture


@pytest.mark.parametrize("size", [(300, 100), (100, 301), (64, 64)])
def test_agrees_with_the_padding_of_llava(size):
    processor = LlavaImageProcessor(size={"shortest_edge": 64}, crop_size=64, do_pad=True)
    picture = Image.effect_noise((10, 10), 120).convert("RGB").resize(size)
    part = seen(picture, processor)
    assert part.width == part.height == max(size)
    whole = processor(picture, return_tensors="np")["pixel_values"]
    padded = processor(part, return_tensors="np")["pixel_values"]
    assert np.abs(whole - padded).max() < 1e-5


def test_a_crop_out_of_a_squeezed_picture():
    processor = CLIPImageProcessor(size={"height": 80, "width": 80}, crop_size=64)
    assert seen(Image.new("RGB", (400, 200)), processor).size == (320, 160)


def test_tiles_that_are_items_come_from_the_processor():
    processor = GotOcr2ImageProcessor(
        size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=4, min_patches=1
    )
    picture = Image.new("RGB", (64, 32))
    picture.paste((255, 0, 0), (32, 0, 64, 32))
    left, right, thumbnail = (
        item.pictures[0] for item in seen_by_item([picture], processor, [ITEM] * 3)
    )
    assert (np.asarray(left) == 0).all() and (np.asarray(right) == (255, 0, 0)).all()
    assert thumbnail.size == (32, 32)


def test_one_item_per_picture_needs_no_tiles():
    picture = Image.new("RGB", (300, 100))
    assert seen_by_item([picture], CLIPImageProcessor(do_center_crop=False), [ITEM]) == [picture]


def test_items_that_no_tile_explains_are_refused():
    with pytest.raises(InvalidParameter, match="1 pictures became 5 visual items"):
        seen_by_item([Image.new("RGB", (64, 64))], CLIPImageProcessor(), [ITEM] * 5)
