"""Qwen2-VL: images of any size, 2x2 patches per token, two frames per temporal step."""

from __future__ import annotations

from foveate.families.base import Family
from foveate.families.grids import in_blocks
from foveate.families.pictures import resize_patches
from foveate.tokens import Layout


class Qwen2VL(Family):
    name = "qwen2_vl"
    towers = {"image": "visual", "video": "visual"}
    blocks = "blocks"
    attention = "attn"
    key = "qkv"
    projector = "visual.merger"

    def merge_sizes(self, config, modality, inputs) -> list[int]:
        """For each item, the patches along one side of a token."""
        grids = inputs[f"{modality}_grid_thw"]
        return [config.vision_config.spatial_merge_size] * len(grids)

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        items, first = [], 0
        grids = inputs[f"{modality}_grid_thw"].tolist()
        for (t, h, w), k in zip(grids, self.merge_sizes(config, modality, inputs), strict=True):
            items.append((in_blocks(t, h // k, w // k, k), first))
            first += t * h * w
        return items

    def shrink(self, config, modality, inputs, shapes):
        pixels, grids = self.pixels[modality], f"{modality}_grid_thw"
        rows, new_grids = resize_patches(
            inputs[pixels],
            inputs[grids],
            shapes,
            self.merge_sizes(config, modality, inputs),
            config.vision_config.patch_size,
        )
        return {**inputs, pixels: rows, grids: new_grids}
