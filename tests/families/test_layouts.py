"""Layouts are what the models' own functions do: every token's tower rows, weights and place."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from transformers.vision_utils import get_vision_position_ids

from foveate.families.base import family_of, raster, resolve_path
from foveate.families.grids import pooled, shrunk
from foveate.families.tiles import stitched, tiled

from . import zoo
from .reference import flat

cases = pytest.mark.parametrize(("name", "modality"), zoo.CASES)


def encode(model, modality: str, inputs: dict, **extra):
    """Arguments of the feature call, and what it returned."""
    call, inputs = zoo.feature_call(model, modality, inputs)
    inputs |= extra
    return inputs, call(**inputs, return_dict=True)


def both(name: str, modality: str) -> dict:
    """Arguments of a batch of two unequal samples."""
    return zoo.batch(name, [zoo.sample(name, modality, i) for i in (0, 1)])


def captured(module: nn.Module, stack: ExitStack, side: str = "output") -> list[Tensor]:
    """What leaves (or enters) a module while the stack is open."""
    seen: list[Tensor] = []

    def hook(_, args, out):
        x = args[0] if side == "input" else out
        seen.append(x[0] if isinstance(x, tuple) else x)

    stack.callback(module.register_forward_hook(hook).remove)
    return seen


@contextmanager
def swapped(owner: nn.Module, name: str, new) -> Iterator[None]:
    """Another parameter or submodule in place of one, for a while."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


@cases
def test_layouts_cover_the_features_item_by_item(name, modality):
    model = zoo.model(name)
    with torch.no_grad():
        inputs, output = encode(model, modality, both(name, modality))
    items = family_of(model.config).layouts(model.config, modality, inputs, output)
    expected = [n for i in (0, 1) for n in zoo.sample(name, modality, i).items]
    assert [layout.n for layout, _ in items] == expected
    assert sum(expected) == len(flat(output.pooler_output))
    for layout, first in items:
        assert first >= 0
        assert layout.grid.n == layout.n
        assert (layout.position[layout.special] == -1).all()
        assert (layout.view[layout.special] == -1).all()
        assert (layout.rows[layout.special] == -1).all()
        assert (layout.rows[~layout.special] >= 0).any(1).all()


@pytest.mark.parametrize(("name", "modality"), [c for c in zoo.CASES if c[0] != "fast_vlm"])
def test_tokens_depend_on_the_rows_that_the_layout_names(name, modality):
    """A token's gradient reaches exactly its own rows of the block that feeds the projector."""
    model = zoo.model(name)
    family = family_of(model.config)
    blocks = resolve_path(resolve_path(model.model, family.towers[modality]), family.blocks)
    block = blocks[max(family.feature_blocks(model.config, len(blocks)))]
    cut: list[Tensor] = []

    def start_here(_, args, out):
        # Behind this point only the projector is left, so that rows no longer mix.
        cut.append(out.detach().requires_grad_())
        return cut[-1]

    inputs = both(name, modality)
    # First in line, for a hook of the library records hidden states as they leave the block.
    handle = block.register_forward_hook(start_here, prepend=True)
    try:
        inputs, output = encode(model, modality, inputs)
    finally:
        handle.remove()
    features = flat(output.pooler_output)
    probe = zoo.noise(5, features.shape[-1])
    order = family.tower_order(model.config, modality, inputs)
    slot = 0
    for layout, first in family.layouts(model.config, modality, inputs, output):
        for token in range(layout.n):
            loss = features[slot] @ probe
            slot += 1
            (grad,) = torch.autograd.grad(loss, cut, retain_graph=True, allow_unused=True)
            touched = torch.zeros(cut[0].shape[:-1]) if grad is None else grad.abs().sum(-1)
            if family.class_token:
                assert bool(touched[:, 0].any()) == (
                    bool(layout.special[token]) and modality == "video" and family.projects_class
                )
                touched = touched[:, 1:]
            touched = touched.flatten()
            touched = touched if order is None else touched[order]
            rows = layout.rows[token]
            rows = rows[rows >= 0] + first
            assert touched.nonzero().flatten().tolist() == sorted(rows.tolist())
    assert slot == len(features)


POOLING_IS_LINEAR = (
    "llava",
    "llava_next",
    "llava_next_video",
    "llava_onevision",
    "video_llava",
    "video_llama_3",
    "gemma3",
    "paligemma",
    "fast_vlm",
)


@pytest.mark.parametrize(
    ("name", "modality", "extra"),
    [
        *((n, m, {}) for n, m in zoo.CASES if n in POOLING_IS_LINEAR),
        ("llava_onevision", "image", {"vision_aspect_ratio": "anyres_max_1"}),
        ("llava_onevision", "image", {"batch_num_images": torch.tensor([2])}),
        ("llava_onevision", "image", {"batch_num_images": torch.tensor([1, 1])}),
        ("llava", "image", {"vision_feature_select_strategy": "full"}),
    ],
)
@torch.no_grad()
def test_pooling_is_the_projectors(name, modality, extra):
    """Behind an identity in the projector's place, features are the pooled tower rows."""
    model = zoo.model(name)
    family = family_of(model.config)
    tower = resolve_path(model.model, family.towers[modality])
    inputs = both(name, modality)
    if "batch_num_images" in extra and len(extra["batch_num_images"]) == 1:
        inputs["pixel_values"] = inputs["pixel_values"][:, 0]
    with ExitStack() as stack:
        if name == "gemma3":
            projector, eye = model.model.multi_modal_projector, nn.Parameter(torch.eye(zoo.WIDTH))
            stack.enter_context(swapped(projector, "mm_soft_emb_norm", nn.Identity()))
            stack.enter_context(swapped(projector, "mm_input_projection_weight", eye))
        else:
            stack.enter_context(swapped(model.model, family.projector, nn.Identity()))
        blocks = None
        if name == "video_llama_3":
            seen = captured(tower.post_layernorm, stack)
        elif name in ("gemma3", "paligemma", "fast_vlm"):
            seen = captured(tower, stack)
        else:
            blocks = resolve_path(tower, family.blocks)
            seen = captured(blocks[max(family.feature_blocks(model.config, len(blocks)))], stack)
        inputs, output = encode(model, modality, inputs, **extra)
    rows = seen[0] if blocks or name == "video_llama_3" else seen[0].last_hidden_state
    if name == "fast_vlm":
        rows = rows.flatten(2).transpose(1, 2)
    classes = rows[:, 0] if family.class_token else None
    rows = rows[:, 1:] if family.class_token else rows
    rows = rows.reshape(-1, rows.shape[-1])
    features, slot = flat(output.pooler_output), 0
    for layout, first in family.layouts(model.config, modality, inputs, output):
        own = features[slot : slot + layout.n]
        slot += layout.n
        patches = ~layout.special
        torch.testing.assert_close(layout.pool(rows[first:])[patches], own[patches])
        if not layout.special.any():
            continue
        views = len(layout.grid.views)
        side = layout.grid.views[0]
        if name in ("llava", "video_llava"):
            classed = classes[first // side : first // side + views]
        else:
            classed = model.model.image_newline.expand(int(layout.special.sum()), -1)
        assert torch.equal(own[layout.special], classed)
    assert slot == len(features)


@pytest.mark.parametrize("owner", [LlavaNextModel, LlavaOnevisionModel])
def test_stitched_grids_of_real_sizes(owner):
    """Patch numbers, packed by the models' own function, come out as the layout says."""
    pinpoints = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008], [1008, 1008]]
    vision = SimpleNamespace(image_size=336, patch_size=14)
    config = SimpleNamespace(vision_config=vision, image_grid_pinpoints=pinpoints)
    one = owner is LlavaOnevisionModel
    sizes = torch.randint(40, 2000, (25, 2), generator=torch.Generator().manual_seed(0)).tolist()
    for size in [*sizes, [336, 336], [1000, 37]]:
        layout, views = tiled(config, size, 4 if one else None)
        numbers = torch.arange(views * 576.0).view(views, 576, 1)
        # Newlines get a number that no patch has, also where numbers are interpolated.
        named = (
            {"vision_aspect_ratio": "anyres_max_4"}
            if one
            else {"vision_feature_select_strategy": "default"}
        )
        packed, _ = owner.pack_image_features(
            SimpleNamespace(config=config),
            [numbers],
            torch.tensor([size]),
            image_newline=torch.tensor([-1.0]),
            **named,
        )
        packed = packed[0][:, 0]
        assert torch.equal(packed == -1, layout.special)
        pooled_numbers = layout.pool(numbers.flatten(0, 1))[:, 0]
        torch.testing.assert_close(pooled_numbers[~layout.special], packed[~layout.special])
        single = layout.rows[:, 0] if layout.weights is None else None
        if single is not None:
            patches = ~layout.special
            assert torch.equal(layout.view[patches], single[patches] // 576)


def test_stitched_positions_follow_the_picture():
    config = zoo.model("llava_next").config
    layout, _ = tiled(config, [100, 60])
    stitched = (layout.position[:, 0] == 1) & ~layout.special
    row, view = layout.rows[stitched, 0], layout.view[stitched]
    crop = torch.stack([(view - 1) // 2, (view - 1) % 2], 1)
    cell = torch.stack([row % 16 // 4, row % 4], 1)
    # 100 x 60 fills 8 x 4 tokens of the 8 x 8 of 2 x 2 crops; two columns go on each side.
    assert torch.equal(layout.position[stitched, 1:], crop * 4 + cell - torch.tensor([0, 2]))
    assert torch.equal(layout.position[:16], raster(1, 4, 4).position)
    assert layout.grid.h == 8 and layout.grid.w == 4 and layout.grid.t == 2
    assert layout.special.nonzero().flatten().tolist() == list(range(16 + 4, 16 + 40, 5))


def test_views_of_a_shrunk_grid_are_those_of_the_nearest_patch():
    model = zoo.model("llava_onevision")
    full, _ = tiled(model.config, [60, 60])
    small, _ = tiled(model.config, [60, 60], 1)
    assert full.grid.h == 8 and small.grid.h == 4
    views = small.view[(small.position[:, 0] == 1) & ~small.special].view(4, 4)
    assert views.tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2


@pytest.mark.parametrize("name", zoo.GRID_FAMILIES)
@pytest.mark.parametrize("modality", ["image", "video"])
def test_grid_positions_follow_the_picture(name, modality):
    """The rows of a token are the patches at its place."""
    model = zoo.model(name)
    inputs = both(name, modality)
    grids = inputs[f"{modality}_grid_thw"]
    place = get_vision_position_ids(grids, 2)
    for layout, first in family_of(model.config).layouts(model.config, modality, inputs, None):
        patches = place[layout.rows + first]
        assert torch.equal(patches // 2, layout.position[:, None, 1:].expand_as(patches))
        assert layout.position[:, 0].tolist() == layout.view.tolist()
        assert layout.position[:, 0].diff().ge(0).all()


def test_bilinear_frames_weigh_their_patches_unequally():
    """27 x 27 patches to 14 x 14 tokens, as LLaVA-OneVision shrinks frames."""
    layout = shrunk(2, 27, 27, 14, 14)
    x = zoo.noise(0, 2, 3, 27, 27)
    expected = nn.functional.interpolate(x, size=(14, 14), mode="bilinear")
    own = layout.pool(x.permute(0, 2, 3, 1).reshape(-1, 3)).view(2, 14, 14, 3)
    torch.testing.assert_close(own.permute(0, 3, 1, 2), expected)
    assert layout.weights[0].max() > 0.28


def test_pooled_views_cover_each_patch_once():
    layout = pooled(2, 3, 4, 2)
    assert sorted(layout.rows.flatten().tolist()) == list(range(2 * 6 * 8))
    x = torch.arange(2 * 6 * 8.0).view(2, 1, 6, 8)
    expected = nn.functional.avg_pool2d(x, 2).flatten()
    torch.testing.assert_close(layout.pool(x.view(-1, 1))[:, 0], expected)


@cases
def test_equal_items_share_their_layout(name, modality):
    model = zoo.model(name)
    family = family_of(model.config)
    one = zoo.sample(name, modality, 0)
    with torch.no_grad():
        call = encode(model, modality, zoo.batch(name, [one, one]))
        again = encode(model, modality, zoo.batch(name, [one]))
    (a, first), (b, second) = family.layouts(model.config, modality, *call)
    (c, _), *_ = family.layouts(model.config, modality, *again)
    assert a is b and a is c
    assert first == 0 and second > 0


def test_windows_permute_the_tower():
    """The sample is wide enough for the order to matter, so that the tests above test it."""
    config = zoo.model("qwen2_5_vl").config
    inputs = both("qwen2_5_vl", "image")
    order = family_of(config).tower_order(config, "image", inputs)
    assert sorted(order.tolist()) == list(range(len(order)))
    assert order.tolist() != list(range(len(order)))


def test_black_crops_are_no_tokens():
    """Samples are padded with black crops, and a sample without a picture has no item."""
    model = zoo.model("idefics3")
    inputs = both("idefics3", "image")
    black = torch.zeros_like(inputs["pixel_values"][:1])
    inputs["pixel_values"] = torch.cat([inputs["pixel_values"], black])
    ones = inputs["pixel_attention_mask"][:1]
    inputs["pixel_attention_mask"] = torch.cat([inputs["pixel_attention_mask"], ones])
    with torch.no_grad():
        inputs, output = encode(model, "image", inputs)
    layouts = family_of(model.config).layouts
    items = layouts(model.config, "image", inputs, output)
    assert [(layout.n, first) for layout, first in items] == [(48, 0), (16, 3 * 64)]
    # Older versions of transformers return the crops of all samples in one tensor.
    stacked = torch.cat([own.reshape(-1, 16, own.shape[-1]) for own in output.pooler_output])
    again = layouts(model.config, "image", inputs, type(output)(pooler_output=stacked))
    assert [(layout.n, first) for layout, first in again] == [(48, 0), (16, 3 * 64)]


def test_what_a_layout_works_out_once_serves_gradients_and_copies():
    layout = replace(stitched(2, (2, 2), (0, 0, 4, 4)))
    with torch.inference_mode():
        pooled = layout.pool(torch.ones(20, 3))
        members = layout.tokens(pooled[None]).by_view()
    x = torch.ones(20, 3, requires_grad=True)
    layout.pool(x)[members[1]].sum().backward()
    assert x.grad.sum() == 3 * len(members[1])
    copy = pickle.loads(pickle.dumps(layout))
    assert not hasattr(copy, "_memo") and torch.equal(copy.view, layout.view)


def test_views_of_reduced_tokens_are_read_off_them():
    tokens = stitched(2, (1, 2), (0, 0, 2, 4)).tokens(torch.zeros(1, 14, 3))
    assert [m.tolist() for m in tokens.by_view()] == [[0, 1, 2, 3], [4, 5, 9, 10], [6, 7, 11, 12]]
    few = tokens.take(torch.tensor([[1, 6, 8, 9]]))
    assert few.layout is None
    assert [m.tolist() for m in few.by_view()] == [[0], [3], [1]]
    assert tokens.add(torch.zeros(1, 1, 3)).layout is None
