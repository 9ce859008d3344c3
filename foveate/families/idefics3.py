"""Idefics3: the crops of all pictures of a sample are one item, a whole view behind its crops."""

from __future__ import annotations

from foveate.families.base import Family
from foveate.families.grids import pooled
from foveate.tokens import Layout


class Idefics3(Family):
    name = "idefics3"
    towers = {"image": "vision_model"}
    projector = "connector"

    def layouts(self, config, modality, inputs, output) -> list[tuple[Layout, int]]:
        k = config.scale_factor
        side = config.vision_config.patch_size * k
        h, w = (pixels // side for pixels in inputs["pixel_values"].shape[-2:])
        items, first = [], 0
        # Samples are padded with black crops, which the model takes out before it encodes.
        for features in output.pooler_output:
            crops = len(features) // (h * w)
            if crops:
                items.append((pooled(crops, h, w, k), first))
            first += crops * h * w * k * k
        return items
