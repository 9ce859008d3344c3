"""Smaller pictures for towers that take any size: what the family makes is what a resize makes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from foveate.errors import UnsupportedCall
from foveate.families.base import family_of

from . import zoo

ANY_SIZE = ("llava", "video_llava", "paligemma", "fast_vlm", *zoo.GRID_FAMILIES)
any_size = pytest.mark.parametrize(
    ("name", "modality"), [case for case in zoo.CASES if case[0] in ANY_SIZE]
)


def call(name: str, modality: str):
    """Model, family and feature arguments of a batch of two."""
    model = zoo.model(name)
    inputs = zoo.batch(name, [zoo.sample(name, modality, i) for i in (0, 1)])
    return model, family_of(model.config), *zoo.feature_call(model, modality, inputs)


def shapes_of(layouts) -> list[tuple[int, int]]:
    return [(layout.grid.h, layout.grid.w) for layout, _ in layouts]


@any_size
@torch.no_grad()
def test_shrunk_calls_make_the_shape_asked_for(name, modality):
    model, family, features, inputs = call(name, modality)
    full = family.layouts(model.config, modality, inputs, None)
    shapes = [(h - 1, w // 2) for h, w in shapes_of(full)]
    smaller = family.shrink(model.config, modality, inputs, shapes)
    output = features(**smaller, return_dict=True)
    layouts = family.layouts(model.config, modality, smaller, output)
    assert shapes_of(layouts) == shapes
    assert [layout.grid.t for layout, _ in layouts] == [layout.grid.t for layout, _ in full]
    tokens = sum(x.reshape(-1, x.shape[-1]).shape[0] for x in output.pooler_output)
    assert sum(layout.n for layout, _ in layouts) == tokens


@any_size
def test_the_full_shape_changes_nothing(name, modality):
    model, family, _, inputs = call(name, modality)
    full = family.layouts(model.config, modality, inputs, None)
    same = family.shrink(model.config, modality, inputs, shapes_of(full))
    assert same.keys() == inputs.keys()
    assert all(torch.equal(same[key], inputs[key]) for key in inputs)


@pytest.mark.parametrize("name", sorted(set(zoo.FAMILIES) - set(ANY_SIZE)))
def test_other_towers_take_one_size(name):
    _, family, _, inputs = call(name, "image")
    assert family.shrink(zoo.model(name).config, "image", inputs, [(1, 1)]) is None


def patch_rows(frames: torch.Tensor, steps: int, side: int, merge: int) -> torch.Tensor:
    """Rows of frames (T, C, H, W) one by one: blocks in raster order, patches within blocks."""
    per_step = len(frames) // steps
    h, w = (n // side for n in frames.shape[-2:])
    rows = []
    for t in range(steps):
        step = frames[t * per_step : (t + 1) * per_step]
        for block in range(h // merge * (w // merge)):
            top, left = (merge * n for n in divmod(block, w // merge))
            for y in range(top, top + merge):
                for x in range(left, left + merge):
                    patch = step[:, :, y * side : (y + 1) * side, x * side : (x + 1) * side]
                    rows.append(patch.transpose(0, 1).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize("name", zoo.GRID_FAMILIES)
def test_patch_rows_are_resized_as_pictures(name):
    model = zoo.model(name)
    steps, per_step, side = 2, 1 if name == "video_llama_3" else 2, 14
    frames = zoo.noise(3, steps * per_step, 3, 4 * side, 8 * side)
    inputs = {
        "pixel_values_videos": patch_rows(frames, steps, side, 2),
        "video_grid_thw": torch.tensor([[steps, 4, 8]]),
        "video_merge_sizes": torch.tensor([2]),
    }
    small = family_of(model.config).shrink(model.config, "video", inputs, [(1, 3)])
    resized = interpolate(frames, (2 * side, 6 * side), mode="bilinear", antialias=True)
    assert small["video_grid_thw"].tolist() == [[steps, 2, 6]]
    torch.testing.assert_close(small["pixel_values_videos"], patch_rows(resized, steps, side, 2))


@pytest.mark.parametrize("name", ["llava", "video_llava", "paligemma", "fast_vlm"])
def test_stacked_pictures_share_one_shape(name):
    model, family, _, inputs = call(name, "image")
    with pytest.raises(UnsupportedCall, match="separate calls"):
        family.shrink(model.config, "image", inputs, [(2, 2), (3, 3)])
