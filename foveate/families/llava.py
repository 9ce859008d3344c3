"""LLaVA-1.5: a CLIP tower with a class token, an MLP projector, tokens in raster order."""

from __future__ import annotations

from foveate.families.base import Family, raster
from foveate.tokens import Layout


class Llava(Family):
    name = "llava"
    class_token = True
    tokenwise = True

    def feature_block(self, config, blocks):
        layer = config.vision_feature_layer
        layer = layer if isinstance(layer, int) else layer[-1]
        return (layer if layer >= 0 else blocks + 1 + layer) - 1

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        patch = config.vision_config.patch_size
        h, w = (side // patch for side in inputs["pixel_values"].shape[-2:])
        return [(raster(1, h, w), i * h * w) for i in range(len(output.pooler_output))]
