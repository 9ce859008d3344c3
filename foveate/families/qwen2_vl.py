"""Qwen2-VL: pictures of any size, 2x2 patches a token, two frames a temporal step."""

from __future__ import annotations

from foveate.families.base import Family
from foveate.families.grids import blocks
from foveate.tokens import Layout


class Qwen2VL(Family):
    name = "qwen2_vl"
    towers = {"image": "visual", "video": "visual"}
    blocks = "blocks"
    attention = "attn"
    key = "qkv"
    projector = "visual.merger"

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        merge = config.vision_config.spatial_merge_size
        items, first = [], 0
        for t, h, w in grids(modality, inputs).tolist():
            items.append((blocks(t, h // merge, w // merge, merge), first))
            first += t * h * w
        return items


def grids(modality, inputs):
    """(items, 3): patches of every item along t, h and w."""
    return inputs[f"{modality}_grid_thw"]
