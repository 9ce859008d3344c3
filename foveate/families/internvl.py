"""InternVL: tiles of one size, 2x2 patches per token; each tile and each frame is an item."""

from __future__ import annotations

from foveate.families.base import Family
from foveate.families.grids import pooled
from foveate.tokens import Layout


class InternVL(Family):
    name = "internvl"
    blocks = "encoder.layer"
    attention = "attention"
    class_token = True

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        # The inputs do not say how the tiles of an image are arranged, so each is its own item.
        k = round(1 / config.downsample_ratio)
        tiles, _, *size = inputs["pixel_values"].shape
        patch = config.vision_config.patch_size
        h, w = (pixels // side // k for pixels, side in zip(size, patch, strict=True))
        return [(pooled(1, h, w, k), i * h * w * k * k) for i in range(tiles)]
