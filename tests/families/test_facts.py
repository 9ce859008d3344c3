"""What families say of their models is true, and what they can't serve they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import transformers as hf

from foveate.errors import UnsupportedCall, UnsupportedModel
from foveate.families.base import families, family_of, resolve_path

from . import zoo


def test_every_family_is_in_the_zoo():
    assert set(families()) == set(zoo.FAMILIES)


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_modalities_are_those_of_the_model(name):
    config, family = zoo.model(name).config, family_of(zoo.model(name).config)
    assert set(family.towers) == {m for n, m in zoo.CASES if n == name}
    for modality in family.towers:
        assert getattr(config, family.placeholders[modality]) in (zoo.IMAGE, zoo.VIDEO)


@pytest.mark.parametrize(("name", "modality"), zoo.CASES)
def test_paths_lead_somewhere(name, modality):
    model = zoo.model(name)
    family = family_of(model.config)
    assert callable(resolve_path(model.model, family.projector).forward)
    tower = resolve_path(model.model, family.towers[modality])
    if family.attention is None:
        return
    blocks = resolve_path(tower, family.blocks)
    assert 0 <= max(family.feature_blocks(model.config, len(blocks))) < len(blocks)
    for block in blocks:
        attention = resolve_path(block, family.attention)
        assert isinstance(getattr(attention, family.key), torch.nn.Linear)
        plain = {"layer_norm1", "self_attn", "layer_norm2", "mlp"}
        assert not family.merges or plain == {child for child, _ in block.named_children()}


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_class_tokens_are_where_the_tower_has_one(name):
    model = zoo.model(name)
    family = family_of(model.config)
    tower = resolve_path(model.model, family.towers["image"])
    names = [n for n, _ in tower.named_parameters()]
    has_one = any("class_embedding" in n or "cls_token" in n for n in names)
    assert family.class_token == has_one


def test_feature_layers_are_read_from_the_config():
    family = families()["llava"]
    config = zoo.model("llava").config
    for layer, read in [(-2, [22]), (-1, [23]), (1, [0]), ([5, -22], [4, 2])]:
        changed = hf.LlavaConfig(**{**config.to_dict(), "vision_feature_layer": layer})
        assert family(changed).feature_blocks(changed, 24) == read


def test_unknown_models_are_refused():
    with pytest.raises(UnsupportedModel, match="llava.*qwen2_5_vl.*add-a-family"):
        family_of(hf.BertConfig())


def test_towers_that_lie_otherwise_are_refused():
    tower = hf.PixtralVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    with pytest.raises(UnsupportedModel, match="pixtral"):
        family_of(hf.LlavaConfig(vision_config=tower))


def test_a_siglip_tower_has_no_class_token():
    tower = hf.SiglipVisionConfig(**zoo.TOWER)
    assert not family_of(hf.LlavaConfig(vision_config=tower)).class_token


ENCODED = SimpleNamespace(pooler_output=[torch.ones(2, 2)])


@pytest.mark.parametrize(
    "inputs",
    [
        {"pixel_values": torch.ones(1), "pixel_values_videos": torch.ones(1)},
        {"mm_encoder_outputs": {"image": ENCODED, "video": ENCODED}},
        {"mm_encoder_outputs": {"image": ENCODED}, "pixel_values_videos": torch.ones(1)},
    ],
)
def test_glm4v_takes_images_or_videos(inputs):
    config = zoo.model("glm4v").config
    family = family_of(config)
    with pytest.raises(UnsupportedCall, match="one frame"):
        family.check(config, inputs)
    family.check(config, {"pixel_values": torch.ones(1), "mm_encoder_outputs": {"video": None}})
    family.check(config, {"mm_encoder_outputs": {"video": ENCODED}})
    family.check(config, {})


def test_video_llama_3_does_not_drop_tokens_itself():
    config = zoo.model("video_llama_3").config
    family = family_of(config)
    with pytest.raises(UnsupportedCall, match="use_token_compression=False"):
        family.check(config, {"video_compression_mask": torch.tensor([True, False])})
    family.check(config, {"video_compression_mask": torch.tensor([True, True])})
    with pytest.raises(UnsupportedCall, match="merge sizes 1 and 2"):
        family.merge_sizes(config, "image", {"image_merge_sizes": torch.tensor([4])})
