"""LLaVA-1.5: a CLIP encoder with a class token, an MLP projector, tokens in raster order."""

from __future__ import annotations

from foveate.families.base import raster
from foveate.families.clip import ClipFamily
from foveate.families.specials import class_before
from foveate.tokens import Layout


class Llava(ClipFamily):
    name = "llava"

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        patch = config.vision_config.patch_size
        n, _, *size = inputs["pixel_values"].shape
        h, w = (pixels // patch for pixels in size)
        layout = raster(1, h, w)
        if self.class_token:
            strategy = inputs.get("vision_feature_select_strategy")
            if (strategy or config.vision_feature_select_strategy) == "full":
                layout = class_before(layout, h * w)
        return [(layout, i * h * w) for i in range(n)]

    def shrink(self, config, modality, inputs, shapes):
        return self.resize(config, modality, inputs, shapes)
